import re
from pathlib import Path

import pytest

from deploy.configs import load_config
from rc_grpo.config import AcdConfig, ConfigError, ExploreConfig, RunConfig, dump, load, parse

POCKET = Path("deploy/configs/pocket.yaml")


@pytest.mark.parametrize("path", sorted(Path("deploy/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_packaged_config_is_valid_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path.stem)
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config


def test_an_override_reaches_its_key_and_its_neighbours_stay() -> None:
    config = load(POCKET, ("rollout.alpha_edit=0.25", "learner.zero_stage=2"))
    assert (config.rollout.alpha_edit, config.learner.zero_stage) == (0.25, 2)
    assert config.rollout.group_size == load(POCKET).rollout.group_size


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("rollout.groupsize=3", "rollout.groupsize"),
        ("colour=red", "colour"),
        ("rollout.alpha_edit=1.5", "rollout.alpha_edit"),
        ("objective.anchors=99", "objective.anchors"),
        ("objective.trained_steps=2", "objective.trained_steps"),
        ("rollout.acd.enabled=false", "objective.acd_weight"),
        ("data.heldout=null", "data.heldout"),
        ("name=../escape", "name"),
        ("reward.judges.ground_truth.weight=0", "every judge has weight 0"),
        ("evaluation.measured_by=oracle", "no judge of the run; its judges are ground_truth"),
        ("reward.judges.p={kind: pairwise, model: m, comparisons: 3}", "reward.judges.p.pairwise.comparisons"),
        ("reward.judges.ground_truth.kind=oracle", "reward.judges.ground_truth"),
        ("reward.judges.Other={kind: ground_truth}", "reward.judges.Other"),
        ("reward.judges.vlm={kind: editscore}", "reward.judges.vlm.editscore.model"),
        ("reward.judges.vlm={kind: editscore, model: m, urls: [a, b]}", "2 urls"),
        (
            "reward.judges.vlm={kind: editscore, model: m, resources: {num_gpus: 1}, server: {tensor_parallel: 2}}",
            "own GPUs",
        ),
        ("seed", "a.b=value"),
        ("seed.deep=1", "seed"),
    ],
)
def test_a_bad_key_or_value_is_named(override: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names.replace(".", r"\.")):
        load(POCKET, (override,))


def test_a_config_cannot_be_changed_after_validation() -> None:
    config = load(POCKET)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_missing_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="mapping"):
        load(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load(tmp_path / "broken.yaml")


def test_defaults_are_those_of_the_design() -> None:
    config = parse({"name": "x", "data": {"train": {"format": "pocket"}, "heldout": {"format": "pocket"}}})
    assert isinstance(config, RunConfig)
    assert (config.rollout.group_size, config.rollout.steps, config.objective.anchors) == (12, 8, 4)
    assert (config.rollout.alpha_edit, config.rollout.alpha_base) == (0.3, 0.01)
    assert (config.objective.tau_edit, config.objective.tau_base, config.objective.clip) == (0.9, 1.1, 1e-4)
    assert (config.editor.lora.rank, config.editor.lora.alpha, len(config.editor.lora.targets)) == (32, 64, 8)
    assert config.rollout.acd.chosen(57) == tuple(range(47, 57))
    assert config.evaluation.steps == 28


@pytest.mark.parametrize(("layers", "last"), [(57, 10), (25, 4), (32, 6), (60, 11), (3, 1), (1, 1)])
def test_attention_is_recorded_in_the_share_of_the_last_layers_that_10_of_57_are(layers: int, last: int) -> None:
    assert AcdConfig().chosen(layers) == tuple(range(layers - last, layers))
    assert AcdConfig(layers=(0, 2)).chosen(layers) == (0, 2)


def test_a_config_extends_another_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(POCKET.read_text())
    (tmp_path / "mine.yaml").write_text("extends: base\nname: mine\nrollout: {workers: 5}\nevaluation: {every: null}\n")
    mine, base = load(tmp_path / "mine.yaml"), load(POCKET)
    assert (mine.name, mine.rollout.workers) == ("mine", 5)
    assert mine.rollout.group_size == base.rollout.group_size
    assert mine.learner == base.learner


def test_null_takes_a_key_of_the_extended_config_away(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: pocket\nreward: {judges: {ground_truth: null, other: {kind: ground_truth}}}\nrollout: {steps: null}\n"
    )
    mine = load(tmp_path / "mine.yaml", library=POCKET.parent)
    assert list(mine.reward.judges) == ["other"]
    assert mine.rollout.steps == 8


def test_what_extends_nothing_or_itself_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b")
    (tmp_path / "b.yaml").write_text("extends: a")
    with pytest.raises(ConfigError, match="extends itself"):
        load(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("extends: nothing")
    with pytest.raises(ConfigError, match=r"nothing\.yaml, which .*c\.yaml extends"):
        load(tmp_path / "c.yaml")


SDE = ("objective.algorithm=flow_grpo", "rollout.exploration=global", "rollout.sde={level: 0.7}")


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (("objective.algorithm=flow_grpo",), "rollout.sde"),
        (("rollout.sde={level: 0.7}",), "objective.algorithm"),
        ((*SDE, "rollout.exploration=rdp"), "rollout.exploration"),
        ((*SDE, "rollout.solver=heun"), "rollout.solver"),
        ((*SDE, "rollout.sde.window=7"), "rollout.sde.window"),
        (("objective.algorithm=diffusion_nft", "loop.max_staleness=1"), "loop.max_staleness"),
        (("objective.algorithm=fdfo", "learner.steps_per_rollout=2"), "learner.steps_per_rollout"),
    ],
)
def test_an_algorithm_that_does_not_fit_the_rollouts_is_refused_with_the_way_out(
    overrides: tuple[str, ...], names: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(names)):
        load_config("pocket", overrides)


def test_the_algorithms_to_compare_with_are_a_setting_each() -> None:
    load_config("pocket", SDE)
    load_config("pocket", (*SDE, "rollout.sde.window=2", "objective.trained_steps=1"))
    for algorithm in ("diffusion_nft", "fdfo"):
        load_config("pocket", (f"objective.algorithm={algorithm}",))


def test_a_pool_is_a_number_or_a_section_and_larger_and_cheaper_than_its_group() -> None:
    data = {
        "name": "x",
        "data": {"train": {"format": "pocket"}},
        "evaluation": {"tasks": 0},
        "objective": {"anchors": 3},
    }
    short = parse(data | {"rollout": {"group_size": 4, "steps": 6, "explore": 16}})
    assert short.rollout.explore == ExploreConfig(candidates=16)
    assert (short.rollout.candidates, short.rollout.exploring_steps) == (16, 2)
    assert short.rollout.explore_cost == pytest.approx(1 + 16 * 2 / (4 * 6))
    for explore, said in (
        (4, "leaves nothing to choose for a group of rollout.group_size = 4"),
        ({"candidates": 8, "steps": 7}, "rollout.explore.steps = 7 > rollout.steps = 6"),
        (True, "explore takes no true or false"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse(data | {"rollout": {"group_size": 4, "steps": 6, "explore": explore}})


@pytest.mark.parametrize("option", ["rollout.fp8=gemm", "rollout.fp8=all", "learner.fp8=true"])
def test_float8_on_one_side_alone_needs_anchors_that_the_learner_recomputes(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"{re.escape(option.split('=')[0])} with objective\.old_path `stored`"):
        load_config("pocket", [option])
    load_config("pocket", [option, "objective.old_path=recompute"])


def test_ranks_that_would_share_a_gpu_are_refused_before_nccl_does() -> None:
    def shared(ranks: int, part: float) -> list[str]:
        return [f"learner.ranks={ranks}", f"learner.resources.num_gpus={part}"]

    with pytest.raises(ConfigError, match=r"would put two ranks on one GPU.* set learner\.ranks=1"):
        load_config("flux_kontext_dev", shared(2, 0.5))
    for fitting in (shared(1, 0.5), shared(2, 0.6)):
        load_config("flux_kontext_dev", fitting)


def test_zero_3_goes_with_recomputed_anchors_and_not_with_frozen_weights_in_float8() -> None:
    sharded = ("learner.zero_stage=3", "objective.old_path=recompute")
    load_config("pocket", [*sharded, "rollout.fp8=gemm"])
    with pytest.raises(ConfigError, match=r"learner\.fp8 keeps whole frozen weights on every rank"):
        load_config("pocket", [*sharded, "learner.fp8=true"])
