"""``rc-grpo judge-bench``: any judge against human preferences, its failures counted and its images scored once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from typer.testing import CliRunner

from deploy.cli import app
from rc_grpo.images import encode_png
from tests.unit.reward.beside import served_beside
from tests.unit.reward.test_pairwise import greys, texts, winner

SOURCE = encode_png(np.full((32, 32, 3), 100, np.uint8))
"""What is preserved: the nearer to its level outside the mask, the better."""

MASK = encode_png(np.pad(np.full((8, 8), 255, np.uint8), ((0, 24), (0, 24))))
KEPT = "reward.judges={kept: {kind: region_preservation, measure: pixels}}"


def edit(level: int, side: int = 32) -> bytes:
    return encode_png(np.full((side, side, 3), level, np.uint8))


def row(
    first: int, second: int, ranking: str, subset: str = "2pair", instruction: str = "x", **more: Any
) -> dict[str, Any]:
    return {
        "dataset": subset,
        "instruction": instruction,
        "source_image": SOURCE,
        "mask": MASK,
        "candidate_1": edit(first),
        "candidate_2": edit(second),
        "ranking": ranking,
    } | more


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def bench(pairs: Path, *options: str, judges: str = KEPT) -> Any:
    return CliRunner().invoke(app, ["judge-bench", "pocket", str(pairs), "--set", judges, *options])


def in_json(pairs: Path, *options: str, judges: str = KEPT) -> Any:
    done = bench(pairs, "--json", *options, judges=judges)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["judges"]


def test_agreement_ties_and_seconds_are_by_judge_and_subset(tmp_path: Path) -> None:
    pairs = written(
        tmp_path,
        row(101, 150, "A>B"),
        row(150, 101, "A>B", instruction="y"),
        row(120, 120, "A=B", instruction="z"),
        row(101, 120, "A>B", "3pair", comparison_type="AvsB"),
        row(101, 140, "A>C", "3pair", comparison_type="AvsC"),
        row(120, 140, "B>C", "3pair", comparison_type="BvsC"),
    )
    kept = in_json(pairs)["kept"]
    whole, two, three = (kept["agreement"][name] for name in ("all", "2pair", "3pair"))
    assert (whole["pairs"], whole["failed"]) == (6, 0)
    assert whole["accuracy"] == pytest.approx(5 / 6)
    assert (two["accuracy"], two["accuracy_without_ties"]) == (pytest.approx(2 / 3), pytest.approx(1 / 2))
    assert (three["groups"], three["group_accuracy"], two["groups"]) == (1, 1.0, 0)
    # Each edit of a source is scored once: two of each pair, one of the equal one, three of the triple.
    assert kept["images"] == 2 + 2 + 1 + 3
    assert kept["seconds_an_image"] == pytest.approx(kept["seconds"] / 8)


def test_a_margin_makes_ties(tmp_path: Path) -> None:
    pairs = written(tmp_path, row(101, 103, "A=B"), row(101, 200, "A>B", instruction="y"))
    assert in_json(pairs)["kept"]["agreement"]["all"]["accuracy"] == 0.5
    wide = in_json(pairs, "--margin", "0.05")["kept"]["agreement"]["all"]
    assert (wide["accuracy"], wide["judge_ties"]) == (1.0, 0.5)


def test_what_a_judge_cannot_score_is_counted_and_said(tmp_path: Path) -> None:
    pairs = written(tmp_path, row(101, 150, "A>B"), row(1, 2, "A>B", instruction="y", mask=None))
    kept = in_json(pairs)["kept"]
    assert (kept["agreement"]["all"]["failed"], kept["agreement"]["all"]["accuracy"]) == (1, 1.0)
    assert "row 1: the mask of" in kept["reasons"][0]
    assert "scored not: " in bench(pairs).stdout


def test_edits_of_another_size_are_resized_to_the_source(tmp_path: Path) -> None:
    pairs = written(tmp_path, row(101, 150, "A>B", candidate_1=edit(101, 64), candidate_2=edit(150, 16)))
    assert in_json(pairs)["kept"]["agreement"]["all"]["accuracy"] == 1.0


def test_several_judges_are_asked_or_those_that_are_named(tmp_path: Path) -> None:
    pairs = written(tmp_path, row(101, 150, "A>B"), row(150, 101, "B>A", instruction="y"))
    two = "reward.judges={kept: {kind: region_preservation, measure: pixels}, seen: {kind: region_preservation}}"
    assert set(in_json(pairs, judges=two)) == {"kept", "seen"}
    assert set(in_json(pairs, "--judge", "seen", judges=two)) == {"seen"}
    refused = bench(pairs, "--judge", "nobody", judges=two)
    assert refused.exit_code == 2
    assert "--judge nobody is no judge of the configuration; its judges are kept, seen" in refused.stderr


def test_a_table_is_printed_json_is_written_and_a_limit_kept(tmp_path: Path) -> None:
    pairs = written(tmp_path, *(row(101, 150, "A>B", instruction=str(n)) for n in range(5)))
    done = bench(pairs, "--limit", "3", "--out", str(tmp_path / "a.json"))
    assert done.exit_code == 0, done.output
    assert "100.0 %" in done.stdout
    assert json.loads((tmp_path / "a.json").read_text())["judges"]["kept"]["agreement"]["all"]["pairs"] == 3


@pytest.mark.parametrize(
    ("judges", "said"),
    [
        ("reward.judges={truth: {kind: ground_truth}}", "judge 'truth' (ground_truth) needs the target of every task"),
        ("reward.judges={p: {kind: pickscore, model: /nowhere}}", "'/nowhere', which a judge of kind pickscore names"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_one_line(tmp_path: Path, judges: str, said: str) -> None:
    refused = bench(written(tmp_path, row(1, 2, "A>B")), judges=judges)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_pairs_that_are_none_are_one_line(tmp_path: Path) -> None:
    refused = bench(tmp_path / "nothing")
    assert refused.exit_code == 2
    assert "no parquet file and no .jsonl at" in refused.stderr


def test_a_judge_that_compares_is_asked_about_the_very_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nearer(body: dict[str, Any]) -> web.Response:
        first, second = (abs(grey - 100) for grey in greys(body))
        return texts(winner("Tie" if first == second else "Image A" if first < second else "Image B"))

    pairs = written(
        tmp_path,
        row(101, 120, "A>B", "3pair", comparison_type="AvsB"),
        row(101, 140, "C>A", "3pair", comparison_type="AvsC"),
        row(120, 80, "B=C", "3pair", comparison_type="BvsC"),
    )
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    with served_beside(nearer) as server:
        judges = f"reward.judges={{pair: {{kind: pairwise, model: judge, urls: ['{server.url}']}}}}"
        found = in_json(pairs, judges=judges)["pair"]
        assert sorted(greys(body) for body in server.requests) == sorted(
            [(101, 120), (120, 101), (101, 140), (140, 101), (120, 80), (80, 120)]
        )
    assert found["agreement"]["all"]["accuracy"] == pytest.approx(2 / 3)
    assert (found["agreement"]["all"]["judge_ties"], found["images"]) == (pytest.approx(1 / 3), 6)
