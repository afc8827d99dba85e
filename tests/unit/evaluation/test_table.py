import json
import math

import pytest

from rc_grpo.evaluation.compbench.measuring import Measured
from rc_grpo.evaluation.compbench.scores import Scores
from rc_grpo.evaluation.compbench.table import tabulate


def psnr(value, corrected=1.0):
    return Measured(Scores(psnr=value), Scores(psnr=corrected))


SAMPLES = {"add": ["a1", "a2", "a3"], "remove": ["r1"], "replace": ["p1"]}
ALL = {"a1": psnr(10.0), "a2": psnr(10.001), "a3": psnr(10.0), "r1": psnr(20.0004), "p1": psnr(40.0006)}


def test_the_overall_is_the_unweighted_mean_of_rounded_family_means_rounded():
    table = tabulate(SAMPLES, ALL, {}, {})
    official = {name: means.official.psnr for name, means in table.families.items()}
    assert official == {"add": 10.0, "remove": 20.0, "replace": 40.001}
    assert table.overall.official.psnr == 23.334  # (10 + 20 + 40.001) / 3 = 23.33367
    assert table.whole


def test_the_corrected_means_are_not_rounded():
    measured = {name: psnr(1.0, value) for name, value in zip(ALL, (1, 2, 4, 5, 7), strict=True)}
    table = tabulate(SAMPLES, measured, {}, {})
    assert table.families["add"].corrected.psnr == pytest.approx(7 / 3)
    assert table.overall.corrected.psnr == pytest.approx((7 / 3 + 5 + 7) / 3)


def test_a_missing_edit_is_listed_never_a_zero():
    measured = {name: ALL[name] for name in ("a1", "r1", "p1")}
    table = tabulate(SAMPLES, measured, {"a2": "no edit"}, {"a3": "the edit is not a readable image"})
    assert table.families["add"].official.psnr == 10
    assert (table.families["add"].measured, table.families["add"].expected) == (1, 3)
    assert table.missing == {"a2": "no edit"}
    assert table.failed == {"a3": "the edit is not a readable image"}
    assert not table.whole


def test_a_family_without_a_measured_sample_is_no_zero_in_the_overall():
    measured = {name: value for name, value in ALL.items() if name != "p1"}
    table = tabulate(SAMPLES, measured, {"p1": "no edit"}, {})
    assert table.overall.official.psnr == 15
    assert math.isnan(table.families["replace"].official.psnr)


def test_nothing_measured_is_no_number_at_all():
    table = tabulate(SAMPLES, {}, dict.fromkeys(ALL, "no edit"), {})
    assert math.isnan(table.overall.official.psnr)
    assert table.overall.as_json()["official"]["psnr"] is None


def test_a_metric_that_some_samples_lack_is_averaged_over_the_others():
    measured = {"a1": psnr(10.0), "a2": psnr(math.nan), "a3": psnr(20.0)}
    table = tabulate({"add": ["a1", "a2", "a3"]}, measured, {}, {})
    assert table.families["add"].official.psnr == 15
    assert not table.whole  # Two families are not there.


def test_an_infinite_psnr_makes_the_official_mean_infinite():
    table = tabulate({"add": ["a1", "a2"]}, {"a1": psnr(math.inf, 60), "a2": psnr(20.0, 20)}, {}, {})
    assert table.families["add"].official.psnr == math.inf
    assert table.families["add"].corrected.psnr == 40
    assert json.loads(json.dumps(table.as_json(), allow_nan=False))["overall"]["official"]["psnr"] == "inf"


def test_a_sample_that_nobody_accounts_for_is_an_error():
    with pytest.raises(ValueError, match="'a2' must be one of measured, missing and failed"):
        tabulate({"add": ["a1", "a2"]}, {"a1": psnr(1.0)}, {}, {})
    with pytest.raises(ValueError, match="'a1'"):
        tabulate({"add": ["a1"]}, {"a1": psnr(1.0)}, {"a1": "no edit"}, {})


def test_the_table_shows_both_kinds_and_a_dash_for_what_was_not_measured():
    lines = tabulate(SAMPLES, ALL, {}, {}).markdown().splitlines()
    assert lines[0] == "| family | measured | metrics | LC-I | LC-T | PSNR | SSIM | LPIPS |"
    assert lines[2] == "| add | 3/3 | official | – | – | 10.000 | – | – |"
    assert lines[-1] == "| overall | 5/5 | corrected | – | – | 1.000 | – | – |"
    assert len(lines) == 2 + 2 * 4
