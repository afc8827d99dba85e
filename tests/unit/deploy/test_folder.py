import json
from pathlib import Path

import numpy as np
import pytest

from deploy.records.folder import RunBusyError, RunExistsError, RunFolder
from deploy.records.metrics import METRICS, MetricsLog
from rc_grpo.evaluation.gains import HeldOut
from rc_grpo.messages import PolicyVersion


def test_only_one_process_drives_a_run_and_the_other_is_told_how_to_ask_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.driven():
        folder.announce({"address": "here", "namespace": "home", "auth": "token"})
        with pytest.raises(RunBusyError, match="rc-grpo status --run"), RunFolder(tmp_path / "run").driven():
            pass
        assert folder.whereabouts == {"address": "here", "namespace": "home", "auth": "token"}
    assert folder.whereabouts is None


def test_a_taken_name_is_refused_and_an_unfinished_run_can_be_gone_on_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check_free()
    folder.path.mkdir()
    with pytest.raises(RunExistsError, match="choose another name"):
        folder.check_free()
    (folder.path / "config.yaml").write_text("name: run")
    with pytest.raises(RunExistsError, match="rc-grpo train --resume"):
        folder.check_free()


def test_going_back_sets_aside_what_came_later_and_loses_none_of_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for update in range(1, 5):
        for kind in ("experience", "grids"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"update-{update:05d}.bin").write_text(str(update))
    log = MetricsLog(tmp_path)
    for update in range(1, 5):
        log.write(update, {"a": update / 2, "b": float("nan")}, event="update")
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"update": 5, "cut o')
    aside = folder.aside(2)
    folder.set_aside(2, aside)
    log.rewind(2, aside)
    log.write(3, {"a": 9.0}, event="update")
    log.close()
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [(line["update"], line["a"]) for line in lines] == [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert len((aside / METRICS).read_text().splitlines()) == 3
    assert [path.name for path in sorted((aside / "grids").iterdir())] == ["update-00003.bin", "update-00004.bin"]
    assert len(list((tmp_path / "experience").iterdir())) == 2
    assert folder.aside(2) != aside


def test_nothing_is_set_aside_where_nothing_came_later(tmp_path: Path) -> None:
    folder, log = RunFolder(tmp_path), MetricsLog(tmp_path)
    log.write(1, {"a": 1.0}, event="update")
    aside = folder.aside(1)
    folder.set_aside(1, aside)
    log.rewind(1, aside)
    log.close()
    assert not aside.exists()


def test_an_evaluation_reads_back_bit_for_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    made = HeldOut(
        PolicyVersion(3, "d", 4, is_identity=False),
        np.array([0.1, np.nan, 1 / 3]),
        random.random(3),
        {"j.part": random.random(3)},
        {"j": np.array([0.1, np.nan, 1 / 3])},
    )
    folder = RunFolder(tmp_path)
    folder.keep_evaluation(7, made.as_json(["a", "b", "c"]))
    read = HeldOut.from_json(folder.evaluations()[7])
    assert read.version == made.version
    np.testing.assert_array_equal(read.reward, made.reward)
    np.testing.assert_array_equal(read.background_drift, made.background_drift)
    np.testing.assert_array_equal(read.subscores["j.part"], made.subscores["j.part"])
    np.testing.assert_array_equal(read.rewards["j"], made.rewards["j"])


def test_each_start_of_a_run_leaves_its_surroundings(tmp_path: Path) -> None:
    from deploy.configs import load_config

    folder = RunFolder(tmp_path)
    for commit in ("one", "two", "three"):
        folder.describe(load_config("pocket"), {"commit": commit})
    record = json.loads((tmp_path / "environment.json").read_text())
    assert record["commit"] == "three"
    assert [start["commit"] for start in record["earlier_starts"]] == ["one", "two"]
