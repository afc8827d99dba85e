"""The split of GPUs that `rc-grpo plan` proposes."""

import itertools
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from benchmarks.gpu.families import EDITORS
from deploy.configs import load_config
from deploy.planning.capacity import CapacityError, make_plan
from deploy.planning.capacity_report import print_plan
from deploy.planning.speeds import speeds
from deploy.planning.work import INTEGRATING, memory_gib, work_of
from rc_grpo.config import RunConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor import lora
from rc_grpo.editor.loading import load_architecture

NAME = "flux_kontext_dev"
MEASURED = {"H200": ("gpu_rollout", "gpu_update"), "H100": ("gpu_rollout_h100", "gpu_update_h100")}
"""By GPU: the results that its rates are from."""


def config(*overrides: str) -> RunConfig:
    return load_config(NAME, overrides)


def test_flux_has_the_operations_that_were_counted_by_hand() -> None:
    size = load_architecture(config("editor.model=full-size").editor)
    assert (size.layers, size.width, size.token) == (57, 3072, 16)
    assert size.parameters == pytest.approx(11.9e9, rel=0.03)
    settings = config().editor.lora
    shapes = lora.adapted(size.projections, settings.targets)
    assert (len(shapes), lora.count_parameters(shapes, settings.rank)) == (266, 52_297_728)


@pytest.mark.parametrize(
    ("target", "modules", "sides"),
    [
        ("attn.to_q", 57, 3072 + 3072),
        ("ff.net.0.proj", 19, 3072 + 4 * 3072),
        ("ff.net.2", 19, 4 * 3072 + 3072),
        ("proj_mlp", 38, 3072 + 4 * 3072),
        ("proj_out", 38, 5 * 3072 + 3072),
    ],
)
def test_a_plans_lora_is_counted_by_both_sides_of_its_projections(target: str, modules: int, sides: int) -> None:
    """By hand, of FLUX's sizes: 19 double and 38 single blocks, 3072 wide, four times that in between."""

    def learner_gib(rank: int) -> float:
        overrides = (f"editor.lora.targets=[{target}]", f"editor.lora.rank={rank}")
        (pool,) = (pool for pool in make_plan(config(*overrides), 8, "H200").pools if pool.name == "learner")
        assert pool.memory_gib is not None
        return pool.memory_gib

    # Of a trained float32 weight: itself, its gradient, and AdamW's two moments.
    assert learner_gib(1032) - learner_gib(8) == pytest.approx(modules * 1024 * sides * 16 / 2**30, rel=1e-6)


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("gpus", [3, 5, 8, 16, 20])
def test_no_other_split_is_faster(gpus: int, staleness: int) -> None:
    plan = make_plan(config(f"loop.max_staleness={staleness}"), gpus, "H200")
    assert sum(pool.gpus for pool in plan.pools) == gpus
    work = [pool.seconds * pool.gpus for pool in plan.pools]

    def seconds(split: tuple[int, ...]) -> float:
        rollout, judge, learner = (demand / count for demand, count in zip(work, split, strict=True))
        return max(rollout, judge, learner) if staleness else max(rollout, judge) + learner

    splits = [split for split in itertools.product(range(1, gpus), repeat=3) if sum(split) == gpus]
    assert plan.seconds <= min(map(seconds, splits)) * (1 + 1e-9)


def test_more_gpus_never_make_an_update_slower() -> None:
    times = [make_plan(config(), gpus, "H200").seconds for gpus in range(3, 25)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(times))


def test_twice_the_groups_take_twice_as_long() -> None:
    once, twice = (make_plan(config(f"loop.groups_per_update={groups}"), 8, "H200") for groups in (24, 48))
    assert twice.seconds == pytest.approx(2 * once.seconds)
    assert twice.candidates_s == pytest.approx(once.candidates_s)


def test_a_judge_without_a_gpu_gets_none() -> None:
    judge = json.dumps({"truth": {"kind": "ground_truth"}})
    plan = make_plan(config(f"reward.judges={judge}"), 2, "H200")
    assert [pool.name for pool in plan.pools] == ["rollout", "learner"]


def test_what_will_not_fit_in_memory_is_said_with_the_way_out() -> None:
    large = config("editor.resolution=1024", "learner.activations=store")
    assert any("learner.anchors_per_pass" in warning for warning in make_plan(large, 8, "H100").warnings)
    one = config("editor.resolution=1024", "learner.activations=store", "learner.anchors_per_pass=1")
    assert not any("learner needs" in warning for warning in make_plan(one, 8, "H100").warnings)


def test_too_few_gpus_and_unknown_types_are_errors_with_the_way_out() -> None:
    with pytest.raises(CapacityError, match="rollout, editscore, learner need one each"):
        make_plan(config(), 2, "H200")
    with pytest.raises(CapacityError, match="there are some for H200, H100"):
        make_plan(config(), 8, "A100")


def test_rates_that_say_nothing_about_a_model_are_said_to() -> None:
    plan = make_plan(load_config("pocket", ()), 2, "H200")
    assert any("too small" in warning for warning in plan.warnings)


def test_the_table_ends_with_the_command_that_uses_the_split(capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(config(), 16, "H200")
    print_plan(Console(width=200), plan, NAME)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"rc-grpo train {NAME} --set rollout.workers=")
    words = last.split()[3:]
    load_config(NAME, tuple(words[1::2]))


def test_the_hours_of_a_run_are_its_updates_and_its_evaluations() -> None:
    settings = (
        "loop={updates: 100, max_staleness: 2}",
        "evaluation={tasks: 60, steps: 16, every: 40}",
        "rollout.steps=8",
    )
    plan = make_plan(config(*settings), 8, "H200")
    rollout, judge = (pool.seconds for pool in plan.pools[:2])
    candidates = plan.candidates_s * plan.seconds
    # Before the first update, after 40, 80 and the last; twice as many steps as a candidate has.
    exams = 4 * 60 * max(2 * rollout, judge) / candidates
    assert plan.hours.evaluations == 4
    assert (plan.hours.training + plan.hours.evaluating) * 3600 == pytest.approx(100 * plan.seconds + exams)
    assert make_plan(config(*settings, "evaluation.tasks=0"), 8, "H200").hours.evaluating == 0


def test_the_page_of_the_real_job_says_the_hours_that_are_planned() -> None:
    said = []
    for name in (NAME, "flux2_klein_4b"):
        hours = make_plan(load_config(name, ()), 8, "H200").hours
        said += [f"{hours.training + hours.evaluating:.1f} hours", f"({(hours.training + hours.evaluating) * 8:.0f}"]
    page = Path("docs/real_job.md").read_text()
    assert [words for words in said if words not in page] == []


@pytest.mark.parametrize("name", [NAME, "flux2_klein_4b", "qwen_image_edit_2511", "qwen_image_21"])
def test_a_packaged_node_of_eight_is_split_as_the_plan_does(name: str) -> None:
    read = load_config(name, ())
    plan = make_plan(read, 8, "H200")
    assert load_config(name, tuple(plan.overrides)) == read
    judge = read.reward.judges["editscore"]
    assert judge.workers * judge.resources.num_gpus == next(
        pool.gpus for pool in plan.pools if pool.name == "editscore"
    )


RESULTS = Path("benchmarks/results")


@pytest.mark.parametrize("gpu_type", list(speeds()))
def test_the_packaged_rates_are_those_of_the_results(gpu_type: str) -> None:
    speed, (rollout, _) = speeds()[gpu_type], MEASURED[gpu_type]
    forward = json.loads((RESULTS / f"{rollout}.json").read_text())["detail"]["forward"]
    measured = {"bfloat16": "bf16", "gemm": "fp8", "all": "fp8 with attention"}
    for name, rate in speed.rollout.items():
        assert rate == pytest.approx(forward[f"{measured[name]}, recorded 1024x4"]["tflop_s"], rel=0.02)
    whole = json.loads((RESULTS / "gpu_whole.json").read_text())["figures"]["rollout_share_of_worker"]["value"]
    assert pytest.approx(whole, abs=0.005) == INTEGRATING


@pytest.mark.parametrize("gpu_type", list(speeds()))
def test_a_step_of_the_learner_is_planned_as_it_was_measured(gpu_type: str) -> None:
    rows = json.loads((RESULTS / f"{MEASURED[gpu_type][1]}.json").read_text())["detail"]["anchor_step"]
    compared = 0
    for name, row in rows.items():
        if (said := re.fullmatch(r"compiled, (\w+)(, fp8)? (\d+)x(\d+)", name)) is None:
            continue
        kind, fp8, side, anchors = said.groups()
        if fp8 and speeds()[gpu_type].update.projections_fp8 is None:
            continue
        asked = config(
            f"editor.resolution={side}",
            f"objective.anchors={anchors}",
            f"learner={{activations: {kind}, anchors_per_pass: {anchors}, fp8: {bool(fp8)}}}",
            *(("objective.old_path=recompute",) if fp8 else ()),
            "loop={max_staleness: 0, groups_per_update: 1}",
        )
        step = work_of(asked, speeds()[gpu_type]).update_s / asked.rollout.steps
        # Two small images together are bound by the GPU and by its host alike, and wait for both.
        small = (side, anchors) == ("512", "2")
        assert step == pytest.approx(row["ms"] / 1e3, rel=0.07 if small else 0.02), name
        compared += 1
    assert compared >= 4


def test_a_small_pass_takes_as_long_as_its_host_and_a_shards_fetch_do() -> None:
    def update(*overrides: str) -> float:
        alone = ("loop={max_staleness: 0, groups_per_update: 1}", "learner.activations=store")
        return work_of(config(*alone, *overrides), speeds()["H200"]).update_s

    steps, blocks = config().rollout.steps, 19 + 38
    by_one = update("learner.anchors_per_pass=1")
    assert by_one == pytest.approx(4 * steps * blocks * speeds()["H200"].block_s[1])
    sharded = update("learner.anchors_per_pass=2", "learner.zero_stage=3")
    assert sharded == pytest.approx(2 * steps * blocks * speeds()["H200"].sharded_block_s[1])
    three = update("learner.anchors_per_pass=3")
    assert update("learner.anchors_per_pass=4") < three < by_one


@pytest.mark.parametrize("kind", list(get_args(Activations)))
def test_the_learners_memory_is_that_of_the_results(kind: str) -> None:
    settings = ("editor.resolution=1024", f"learner.activations={kind}", "learner.anchors_per_pass=1")
    learner = make_plan(config(*settings), 8, "H200").pools[-1]
    step = json.loads((RESULTS / "gpu_update.json").read_text())["detail"]["anchor_step"]
    assert learner.memory_gib == pytest.approx(step[f"compiled, {kind} 1024x1"]["peak_mib"] / 1024, rel=0.05)


@pytest.mark.parametrize("family", [*EDITORS, "qwen_image_21, shared"])
def test_every_familys_memory_is_that_of_the_results(family: str) -> None:
    name, _, mode = family.partition(", ")
    if name == "qwen_image_21":
        peaks = json.loads((RESULTS / "gpu_prefix.json").read_text())["detail"]["update"]
        peak = peaks[mode or "none"]["peak_mib"]
    else:
        steps = json.loads((RESULTS / "gpu_families.json").read_text())["detail"][name]["update"]["anchor_step"]
        peak = steps["compiled, store 1024x1"]["peak_mib"]
    editor = EDITORS[name].model_copy(update={"resolution": 1024, "prefix": mode or "none"})
    learner = config().learner.model_copy(update={"activations": "store", "anchors_per_pass": 1})
    planned = config().model_copy(update={"editor": editor, "learner": learner})
    assert memory_gib(planned)["learner rank"] == pytest.approx(peak / 1024, rel=0.03)


def test_the_full_size_model_is_planned_like_the_one_on_the_hub() -> None:
    on_hub, here = (
        make_plan(config(f"editor.model={model}"), 8, "H200") for model in (config().editor.model, "full-size")
    )
    assert on_hub == here


def test_a_plan_states_what_exploring_costs_in_operations_time_and_judgements() -> None:
    plain = make_plan(load_config("flux_kontext_dev"), 8, "H200")
    config = load_config("flux_kontext_dev", ("rollout.explore=48",))
    plan = make_plan(config, 8, "H200")
    assert config.rollout.explore_cost == 1 + 48 * 2 / (12 * 8) <= 2.4
    (said,) = (warning for warning in plan.warnings if "exploring 48" in warning)
    assert "in 2 of 8 steps takes, with the 12 exact ones, 2.00 times the operations of those alone" in said
    assert "5.0 times the judgements" in said
    busy = [{pool.name: pool.seconds * pool.gpus for pool in one.pools} for one in (plain, plan)]
    assert 1.4 < busy[1]["rollout"] / busy[0]["rollout"] < 2.0  # float8 is faster, and no more than it was measured
    assert busy[1]["learner"] == pytest.approx(busy[0]["learner"])


def test_a_split_that_is_asked_for_costs_what_its_slowest_pool_takes() -> None:
    """By hand: of three numbers that share out the same work, the largest quotient."""
    best = make_plan(config("loop.max_staleness=1"), 8, "H200")
    work = [pool.seconds * pool.gpus for pool in best.pools]
    plan = make_plan(config("loop.max_staleness=1"), None, "H200", split="5/1/2")
    assert [pool.gpus for pool in plan.pools] == [5, 1, 2]
    assert plan.seconds == pytest.approx(max(work[0] / 5, work[1] / 1, work[2] / 2))
    assert plan.faster == ("3/1/4", pytest.approx(best.seconds))
    assert best.faster is None
    assert plan.overrides == ["rollout.workers=5", "reward.judges.editscore.workers=2", "learner.ranks=2"]


@pytest.mark.parametrize(
    ("split", "gpus", "said"),
    [
        ("5/3", None, "has 2 numbers; 3 are wanted, of rollout / editscore / learner"),
        ("5/x/2", None, "write the GPUs of rollout / editscore / learner, such as 1/1/1"),
        ("5/0/2", None, "write the GPUs of"),
        ("5/1/2", 9, "are 8 GPUs, and --gpus says 9"),
    ],
)
def test_a_split_that_is_none_is_an_error_that_names_the_pools(split: str, gpus: int | None, said: str) -> None:
    with pytest.raises(CapacityError, match=said):
        make_plan(config(), gpus, "H200", split=split)


def test_gpus_beyond_the_groups_of_an_update_do_nothing_and_are_said_to() -> None:
    few = config("loop={groups_per_update: 2, max_staleness: 1}")
    plan = make_plan(few, None, "H200", split="4/1/1")
    assert any("2 of 4 GPUs of rollout have nothing to do" in warning for warning in plan.warnings)
    assert plan.pools[0].seconds == make_plan(few, None, "H200", split="2/1/1").pools[0].seconds
    # Ranks deal out anchors, of which a group has several.
    assert not any("of learner" in one for one in make_plan(few, None, "H200", split="1/1/4").warnings)


def test_a_run_costs_its_gpu_hours_times_the_price() -> None:
    hours = make_plan(config(), 8, "H200", price=2.5).hours
    money = (hours.training + hours.evaluating) * 8 * 2.5
    assert f"{money:,.2f} at 2.5 each" in hours.in_words
    assert "each" not in make_plan(config(), 8, "H200").hours.in_words


def test_pools_that_ask_for_fractions_of_a_gpu_take_turns_on_it() -> None:
    one = load_config("flux2_klein_4b_one_gpu", ())
    shared = make_plan(one, 1, "H100")
    assert shared.shared == (("rollout", "editscore", "learner"),)
    assert [pool.gpus for pool in shared.pools] == [1, 1, 1]
    assert shared.seconds == pytest.approx(sum(pool.seconds for pool in shared.pools))
    twice = make_plan(one, 2, "H100")
    assert twice.seconds == pytest.approx(shared.seconds / 2)
    whole = {"rollout.resources.num_gpus": 1, "reward.judges.editscore.resources.num_gpus": 1}
    apart = load_config("flux2_klein_4b_one_gpu", tuple(f"{key}={value}" for key, value in whole.items()))
    with pytest.raises(CapacityError, match="Actors that ask for fractions share one"):
        make_plan(apart, 1, "H100")


def test_servers_that_share_a_gpu_judge_at_the_rate_of_so_many() -> None:
    def judges(part: float, *overrides: str, gpus: int = 8) -> tuple[float, float | None, str]:
        key = "reward.judges.editscore"
        server = f"{key}.server={{gpu_memory_utilization: {min(part, 1) * 0.9}}}"
        plan = make_plan(config(f"{key}.resources.num_gpus={part}", server, *overrides), gpus, "H200")
        (pool,) = (pool for pool in plan.pools if pool.name == "editscore")
        return pool.seconds * pool.gpus, pool.memory_gib, pool.setting.partition("=")[2]

    one, two = speeds()["H200"].judge_images_s
    (alone, memory, _), (twice, same, servers), (thrice, _, more) = (judges(part) for part in (1, 0.5, 0.33))
    assert (servers, more) == ("2", "3")
    assert alone / twice == alone / thrice == pytest.approx(two / one)
    assert memory == pytest.approx(same)
    # Beside others there is room for fewer, and no idle time for a second one to fill.
    for part, expected in ((0.4, "1"), (0.2, "2")):
        beside, _, count = judges(part, "learner.resources.num_gpus=0.6", "learner.ranks=1", gpus=2)
        assert (beside, count) == (pytest.approx(alone), expected)


def test_two_judges_of_one_gpu_are_planned_as_many_servers_as_it_holds() -> None:
    judge = {
        "kind": "editscore",
        "model": "m",
        "resources": {"num_gpus": 0.25},
        "server": {"gpu_memory_utilization": 0.2},
    }
    read = config(f"reward.judges={json.dumps({'one': judge, 'two': judge})}")
    plan = make_plan(read, None, "H200", split="3/1/4")
    assert plan.shared == (("one", "two"),)
    planned = load_config(NAME, (f"reward.judges={json.dumps({'one': judge, 'two': judge})}", *plan.overrides))
    assert sum(each.workers * each.resources.num_gpus for each in planned.reward.judges.values()) <= 1


def test_a_server_of_several_gpus_takes_them_all() -> None:
    key = "reward.judges.editscore"
    read = config(f"{key}.resources.num_gpus=2", f"{key}.server={{tensor_parallel: 2}}")
    (pool,) = (pool for pool in make_plan(read, None, "H200", split="3/2/4").pools if pool.name == "editscore")
    (single,) = (
        pool
        for pool in make_plan(
            config(f"{key}.resources.num_gpus=1", f"{key}.server={{}}"), None, "H200", split="3/1/4"
        ).pools
        if pool.name == "editscore"
    )
    assert pool.setting == f"{key}.workers=1"
    assert pool.seconds == pytest.approx(single.seconds)


def test_what_shares_a_gpu_must_fit_it_together() -> None:
    def said(*overrides: str) -> list[str]:
        warnings = make_plan(load_config("flux2_klein_4b_one_gpu", overrides), 1, "H100").warnings
        return [warning for warning in warnings if warning.startswith("rollout + editscore + learner need")]

    assert said() == []
    (warning,) = said("editor.resolution=1024", "learner.activations=store", "learner.anchors_per_pass=null")
    assert "learner.anchors_per_pass lower" in warning
    assert "reward.judges.editscore.server.gpu_memory_utilization lower" in warning


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("gpus", [2, 3, 5, 8])
def test_no_other_split_is_faster_where_judge_and_learner_share(gpus: int, staleness: int) -> None:
    parts = {"reward.judges.editscore.resources.num_gpus": 0.4, "learner.resources.num_gpus": 0.6}
    server = "reward.judges.editscore.server.gpu_memory_utilization=0.3"
    read = config(f"loop.max_staleness={staleness}", server, *(f"{key}={value}" for key, value in parts.items()))
    plan = make_plan(read, gpus, "H200")
    rollout, judge, learner = (pool.seconds * pool.gpus for pool in plan.pools)

    def seconds(own: int) -> float:
        both = gpus - own
        if staleness:
            return max(rollout / own, (judge + learner) / both)
        return max(rollout / own, judge / both) + learner / both

    assert plan.seconds == pytest.approx(min(map(seconds, range(1, gpus))))


def test_a_learner_recomputes_paths_at_its_own_rate_whatever_precision_rollouts_have() -> None:
    def learning(*overrides: str) -> float:
        plan = make_plan(config("objective.old_path=recompute", "loop.max_staleness=1", *overrides), 8, "H200")
        return next(own.seconds * own.gpus for own in plan.pools if own.name == "learner")

    assert learning("rollout.fp8=all") == pytest.approx(learning())
    assert learning("learner.fp8=true") < 0.9 * learning()


def test_float8_is_planned_at_the_rate_that_was_measured_or_said_not_to_be() -> None:
    def seconds(pool: str, *overrides: str) -> float:
        plan = make_plan(config("objective.old_path=recompute", "loop.max_staleness=0", *overrides), 8, "H200")
        return next(own.seconds * own.gpus for own in plan.pools if own.name == pool)

    rates = speeds()["H200"]
    assert rates.update.projections_fp8 is not None
    # In what is learned from nothing but projections, it is their rate alone.
    free = rates.model_copy(update={"update": rates.update.model_copy(update={"attention": 1e9})})
    together = ("objective.old_path=recompute", "loop.max_staleness=0", "learner.anchors_per_pass=4")
    exact, in_fp8 = (work_of(config(*together, f"learner.fp8={fp8}"), free).update_s for fp8 in ("false", "true"))
    assert exact == pytest.approx(in_fp8 * rates.update.projections_fp8 / rates.update.projections)
    assert seconds("learner", "learner.anchors_per_pass=4") > seconds(
        "learner", "learner.anchors_per_pass=4", "learner.fp8=true"
    )
    share = rates.rollout["all"] / rates.rollout["bfloat16"]
    assert seconds("rollout") == pytest.approx(share * seconds("rollout", "rollout.fp8=all"))
    both = config("objective.old_path=recompute", "rollout.fp8=all", "learner.fp8=true")
    said = make_plan(both, 8, "H100").warnings
    assert any("rollout.fp8=all was not measured on this GPU; the rate of gemm is taken" in line for line in said)
    assert any("(learner.fp8) were not measured on this GPU" in line for line in said)
