"""The benchmark beside rivals: who is best, who stands in for one that could not run, what a clock's laps come to."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import parts
from benchmarks.gpu.peers import __main__ as peers
from benchmarks.gpu.peers import outside, reckoning, sources
from benchmarks.gpu.peers.reckoning import COULD_NOT
from benchmarks.gpu.peers.setting import CANDIDATE, ROLLOUT_PEAK, STEP, Clock, Setting, part
from benchmarks.results import Figure


def measured(candidate: float, step: float) -> parts.Part:
    return {CANDIDATE: Figure(candidate, "s"), STEP: Figure(step, "s")}, {}


FOUND = {
    ("ours", 512): measured(0.5, 0.2),
    ("ours_float8", 512): ({CANDIDATE: Figure(0.4, "s")}, {}),
    ("stock", 512): measured(0.9, 0.36),
    ("flow_grpo", 512): measured(0.8, 0.5),
    ("flow_factory", 512): measured(1.0, 0.4),
}


def test_each_figure_is_against_the_rival_that_is_fastest_at_that() -> None:
    named = reckoning.figures(FOUND, (512, 1024))
    rollout, update = named["rollout_over_best_peer"], named["update_over_best_peer"]
    assert (rollout.value, rollout.goal, rollout.note) == (0.8 / 0.5, "at least 1.5", "512x512, against flow_grpo")
    assert (update.value, update.note) == (0.4 / 0.2, "512x512, against flow_factory")
    assert (named["rollout_float8_over_best_peer"].value, named["rollout_float8_over_best_peer"].goal) == (2.0, None)
    assert named["flow_grpo_512_seconds_per_candidate"].value == 0.8


def test_stock_stands_in_for_a_rival_that_could_not_run_and_the_reason_is_said() -> None:
    found = FOUND | {("flow_grpo", 512): ({}, {COULD_NOT: "ImportError: no imp"})}
    figure = reckoning.ratio(found, 512, "ours", CANDIDATE)
    assert figure is not None
    assert figure.value == 0.9 / 0.5
    assert figure.note == "512x512, against stock; in the place of flow_grpo: ImportError: no imp"
    del found["stock", 512], found["flow_factory", 512]
    assert reckoning.ratio(found, 512, "ours", CANDIDATE) is None


def test_a_second_size_has_names_of_its_own_and_no_goal() -> None:
    named = reckoning.figures(FOUND | {(system, 1024): part for (system, _), part in FOUND.items()}, (512, 1024))
    assert named["rollout_over_best_peer_1024"] == replace(
        named["rollout_over_best_peer"], goal=None, note="1024x1024, against flow_grpo"
    )


def test_laps_come_to_seconds_of_one_candidate_warm_and_without_encoding_the_source() -> None:
    clock = Clock(torch.device("cpu"), {"rollout": [9.0, 4.0, 4.0], "encode": [3.0, 1.0, 1.0], "step": [5.0, 2.0]})
    clock.peaks = {"rollout": 2**21, "step": 0}
    figures, detail = part(clock, 6, 2, {"launch": "plain"})
    assert (figures[CANDIDATE].value, figures[STEP].value, figures[ROLLOUT_PEAK].value) == (0.5, 1.0, 2.0)
    assert (detail["launch"], detail["candidates_together"]) == ("plain", 6)


def test_what_others_publish_is_per_gpu_and_per_unit_of_its_peak_and_says_that_it_is_not_measured() -> None:
    said = reckoning.PUBLISHED[0].said
    assert said["published_not_measured"] is True
    assert said["images_per_gpu_second"] == pytest.approx(0.305, abs=5e-4)  # as its makers divide it
    assert said["images_per_peak_pflop"] == pytest.approx(0.308, abs=5e-4)
    # 12 candidates at 0.5 s, four anchors through eight steps at 0.25 s: 14 s.
    assert reckoning.images_per_gpu_second(0.5, 0.25, 8, 4, 12) == pytest.approx(12 / 14)


@pytest.fixture
def options() -> argparse.Namespace:
    return argparse.Namespace(peers=Path("nowhere"), limit=100.0)


def tried(monkeypatch: pytest.MonkeyPatch, ends: Iterator[tuple[int, dict[str, Any]]], path: Path) -> list[Setting]:
    """Let processes end so; return the settings that they are started with."""
    settings: list[Setting] = []

    def apart(_module: str, *arguments: str, limit: float) -> int:
        assert 0 < limit <= 100
        settings.append(Setting(**json.loads(arguments[-1])))
        code, left = next(ends)
        if left:
            parts.leave(path, ({CANDIDATE: Figure(1.0, "s")} if code == 0 else {}, left))
        return code

    monkeypatch.setattr(peers.parts, "apart", apart)
    return settings


def test_where_memory_ends_a_smaller_batch_is_tried_and_where_it_fails_another_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: argparse.Namespace
) -> None:
    path = tmp_path / "flow_grpo.512.json"
    memory = {COULD_NOT: "OutOfMemoryError", "out_of_memory": True}
    ends = iter([(1, memory), (1, {COULD_NOT: "illegal access", "out_of_memory": False}), (0, {"launch": "deepspeed"})])
    settings = tried(monkeypatch, ends, path)
    assert peers.attempt("flow_grpo", Setting(512), options, tmp_path)
    assert [(one.batch, one.launch, one.cudnn) for one in settings] == [
        (6, "deepspeed", True),
        (4, "deepspeed", True),
        (6, "deepspeed", False),
    ]
    (_, detail) = parts.gather({"it": path})["it"]
    assert [one["why"] for one in detail["tried_before"]] == ["OutOfMemoryError", "illegal access"]


def test_a_system_that_never_ran_leaves_its_first_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: argparse.Namespace
) -> None:
    settings = tried(monkeypatch, iter([(-11, {}), (1, {COULD_NOT: "again"})]), tmp_path / "flow_factory.512.json")
    assert not peers.attempt("flow_factory", Setting(512), options, tmp_path)
    assert len(settings) == 2
    (figures, detail) = parts.gather({"it": tmp_path / "flow_factory.512.json"})["it"]
    assert figures == {}
    assert detail[COULD_NOT] == "ended with exit code -11, 100 s at most"


def test_files_of_another_commit_are_refused_and_where_there_are_none_it_says_how_to_get_them(tmp_path: Path) -> None:
    source = sources.FLOW_GRPO
    with pytest.raises(FileNotFoundError, match=r"python -m benchmarks\.gpu\.peers\.sources"):
        sources.folder_of(source, tmp_path)
    (tmp_path / source.name).mkdir()
    (tmp_path / source.name / "script.py").write_text("print(1)")
    with pytest.raises(ValueError, match="does not hold the files of 9745241"):
        sources.folder_of(source, tmp_path)
    mine = replace(source, digest=sources.digest_of(tmp_path / source.name))
    assert sources.folder_of(mine, tmp_path) == tmp_path / source.name


def test_a_stand_in_is_found_by_every_form_of_import(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("standing", "standing.deep"):
        monkeypatch.setitem(outside.sys.modules, name, outside.sys)
        monkeypatch.delitem(outside.sys.modules, name)
    outside.stand_in("standing.deep", thing=1)
    import standing.deep  # type: ignore[import-not-found]
    from standing.deep import thing  # type: ignore[import-not-found]

    assert standing.deep.thing == thing == 1
