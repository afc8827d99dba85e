"""The benchmark of several GPUs: its layouts are configurations that fit, and its figures are what was seen."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.gpu.cluster import layouts, planned, runs, timeline
from benchmarks.gpu.cluster.__main__ import figures, parts_of, weak_scaling
from benchmarks.gpu.cluster.observer import judges_are_back
from benchmarks.gpu.parts import Part
from benchmarks.results import Figure
from deploy.cluster import demands
from deploy.configs import load_config
from deploy.planning.capacity import make_plan
from rc_grpo.config import EditScoreConfig


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_every_layout_is_a_configuration_that_its_gpus_hold(gpus: int, tmp_path: Path) -> None:
    packaged = runs.Machine(gpus, small=False, judge_python="python3", out=tmp_path).config
    for layout in layouts.layouts(gpus):
        config = load_config(packaged, layouts.full_size(layout, tmp_path, "python3"))
        parts = sorted((demand.each.num_gpus for demand in demands(config) for _ in range(demand.count)), reverse=True)
        room = [1.0] * gpus
        for part in parts:
            place = next(index for index, left in enumerate(room) if left >= part - 1e-9)
            room[place] -= part
        if layout.judge:
            judge = config.reward.judges["editscore"]
            assert isinstance(judge, EditScoreConfig)
            assert (judge.server.kv_cache_gib is None) == (judge.resources.num_gpus == 1)
        plan = make_plan(config, None, "H200", split=layout.split)
        assert [pool.setting for pool in plan.pools if pool.name == "learner"] == [
            f"learner.ranks={config.learner.ranks}"
        ]
        assert plan.gpus == gpus
        load_config("pocket", layouts.small(layout))


def test_a_number_of_gpus_without_layouts_is_an_error_that_names_those_with() -> None:
    with pytest.raises(ValueError, match="1, 2, 4, 8 GPUs, none of 3"):
        layouts.layouts(3)


def test_what_several_parts_measured_is_named_by_the_worst() -> None:
    first = {"overlap_efficiency": Figure(0.9, "share"), "groups_lost": Figure(0, "groups")}
    second = {"overlap_efficiency": Figure(0.95, "share"), "groups_lost": Figure(1, "groups")}
    named = figures({"one": (first, {}), "two": (second, {})})
    assert (named["overlap_efficiency"].value, named["groups_lost"].value) == (0.9, 1)
    assert named["overlap_efficiency_two"].value == 0.95


def test_a_parts_plan_is_todays_and_only_of_gpus_that_a_plan_knows() -> None:
    config, split = load_config("flux_kontext_dev", ()), "3/1/4"
    seconds = make_plan(config, None, "H200", split=split).seconds
    left = planned.asked(config, split, seconds * 1.25, "NVIDIA H200")
    figures, _ = planned.with_plan(({}, {"plan": json.loads(json.dumps(left))}))
    assert figures["plan_error"].value == pytest.approx(0.2)
    for part in (({}, {"plan": planned.asked(config, split, 1.0, "no GPU")}), ({}, {})):
        assert planned.with_plan(part) == part


def test_weak_scaling_is_the_pace_for_each_gpu_over_that_on_two_gpus_and_nothing_without_both_alike() -> None:
    def left(pace: float, **learner: object) -> Part:
        return {runs.PACE: Figure(pace, "candidates", None, "many")}, {"plan": {"config": {"learner": learner}}}

    many = {"weak": left(0.54, ranks=2, activations="store")}
    two, other = ({"stale_1": left(0.6, ranks=1, activations=kind)} for kind in ("store", "selective"))
    assert math.isclose(weak_scaling(many, two)["weak_scaling"].value, 0.9)
    assert weak_scaling(many, {}) == weak_scaling({}, two) == weak_scaling(many, other) == {}


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_every_part_runs_on_some_number_of_gpus_and_weak_scaling_on_the_layout_of_two_several_times(gpus: int) -> None:
    chosen = parts_of(gpus)
    assert ("weak" in chosen) == (gpus > 2)
    assert ("one_card" in chosen) == (gpus == 1)
    if "weak" in chosen:
        two, many = layouts.layouts(2)[0], layouts.layouts(gpus)[1]
        assert many.split == "/".join(str(int(part) * gpus // 2) for part in two.split.split("/"))


def test_judges_are_back_when_the_killed_one_works_again_and_not_when_another_does() -> None:
    def status(judged: int, resting: int) -> dict[str, Any]:
        pool = {"workers": 2, "wanted": 2, "resting": resting, "lost": 0}
        return {"pools": {"reward-judge": pool}, "groups": {"ready": judged, "learned": 0}}

    noted: list[dict[str, Any]] = []
    back = judges_are_back("reward-judge", status(3, 0), noted.append)
    # Nobody has noticed yet; then it is missed, and the other goes on.
    assert not back(status(4, 0))
    assert not back(status(4, 1))
    assert [line["taken_over"] for line in noted] == ["judge"]
    assert not back(status(9, 1))
    assert back(status(9, 0))
    assert len(noted) == 1
    assert [what for what, _ in timeline.taken_over(noted)] == ["judge"]


def test_a_picture_is_drawn_of_a_run_that_was_watched_and_of_one_that_was_cut_off(tmp_path: Path) -> None:
    def look(second: int, update: int, busy: float) -> str:
        pool = f'{{"workers": 1, "busy_seconds": {busy}}}'
        return (
            f'{{"seconds": {second}, "gpus": [[50, 1000]], "update": {update}, "updating": true, '
            f'"pools": {{"rollout": {pool}, "reward-judge": {pool}}}}}\n'
        )

    text = look(0, 0, 0.0) + look(1, 0, 1.0) + '{"seconds": 1.5, "killed": "rollout", "update": 0}\n'
    text += '{"seconds": 9.5, "back": "rollout", "after": 8.0}\n' + look(10, 1, 1.0) + '{"seconds": 11, "gp'
    (tmp_path / "seen.jsonl").write_text(text)
    lines = timeline.read(tmp_path / "seen.jsonl")
    assert timeline.returns(lines) == {"rollout": 8.0}
    assert math.isclose(lines[-1]["seconds"], 10)
    timeline.draw(lines, "a run", tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.width > picture.height > 200
