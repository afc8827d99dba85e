"""What text and source are to every step and candidate is computed once, and nothing comes out otherwise."""

from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from learner import activations
from learner.statistics import Statistics
from learner.updates import UPDATES
from learner.work import GroupWork, RunShape
from rc_grpo.algorithm.solver import integrate
from rc_grpo.config import AcdConfig, EditorConfig, ObjectiveConfig, SdeConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.fast import compiling
from rc_grpo.editor.loading import check_model, load_denoiser, load_editor
from rc_grpo.editor.prefix import StalePrefixError
from rc_grpo.editor.registry import find
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.editor.weights.policy import AdapterPolicy
from rc_grpo.messages import CandidateGroup, Conditions, PolicyVersion, RolloutSeeds
from rc_grpo.seeds import normal
from tests.families import KONTEXT, QWEN_21, source, trained

STEPS, GROUP = 3, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert QWEN_21.make is not None
    QWEN_21.make(folder / QWEN_21.name)
    return folder


@pytest.fixture(scope="module")
def conditions(folder: Path) -> Conditions:
    return load_editor(QWEN_21.editor(folder), seed=0).encode_image(source(), "make it red")


def config_of(folder: Path, prefix: str, guidance: float = 1.0) -> EditorConfig:
    return QWEN_21.editor(folder, guidance).model_copy(update={"prefix": prefix})


def denoiser_of(folder: Path, prefix: str, guidance: float = 1.0, policy: PolicyMaker = AdapterPolicy) -> Denoiser:
    config = config_of(folder, prefix, guidance)
    family = find(config)
    body = family.body(family.load_transformer(config, torch.device("cpu"), torch.float32), config)
    denoiser = Denoiser(body, config, 0, policy)
    denoiser.policy.load(trained(denoiser))
    return denoiser


def modes_of(denoiser: Denoiser) -> list[str]:
    """In which of its modes the transformer is called from now on."""
    modes: list[str] = []
    denoiser.transformer.register_forward_pre_hook(
        lambda module, arguments, named: modes.append(named["kv_cache_mode"]), with_kwargs=True
    )
    return modes


@pytest.mark.parametrize("policy", [AdapterPolicy, MergedPolicy])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@torch.no_grad()
def test_a_rollouts_states_and_recordings_are_those_of_the_whole_passes(
    folder: Path, conditions: Conditions, guidance: float, policy: PolicyMaker
) -> None:
    states, densities = [], []
    for prefix in ("none", "shared"):
        denoiser = denoiser_of(folder, prefix, guidance, policy)
        modes, field = modes_of(denoiser), denoiser.velocity(conditions)
        noise = normal(5, GROUP, *denoiser.latent_shape(conditions))
        mask, counted = torch.arange(noise.shape[1]) % 3 == 0, torch.from_numpy(conditions.text_valid)
        with denoiser.recording((0, 1), mask, counted, "to_text") as recorder, field.held():
            states.append(integrate(field, noise, denoiser.sigmas(STEPS, conditions)))
        densities.append(recorder.density)
        texts = 2 if guidance > 1 else 1
        # Once a task, whatever the steps and candidates.
        assert modes.count("extract") == texts * (1 if prefix == "shared" else STEPS)
        assert modes.count("cached") == texts * (STEPS if prefix == "shared" else 0)
    assert float((states[0] - states[1]).abs().max()) <= 1e-6 * max(1.0, float(states[0].abs().max()))
    torch.testing.assert_close(densities[1], densities[0], rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("policy", [AdapterPolicy, MergedPolicy])
def test_a_version_that_changes_under_a_living_prefix_is_refused(
    folder: Path, conditions: Conditions, policy: PolicyMaker
) -> None:
    denoiser = denoiser_of(folder, "shared", policy=policy)
    field, x = denoiser.velocity(conditions), normal(5, 1, *denoiser.latent_shape(conditions))
    version, data = lora.pack(2, trained(denoiser, seed=4))
    with field.held():
        before = field(x, 0.5)
        denoiser.policy.load(lora.deserialise(data, denoiser.device))
        with pytest.raises(StalePrefixError, match="changed while a prefix was held"):
            field(x, 0.5)
    # It went with the version: what is held anew is the new one's.
    denoiser.adopt(version, data, worker="w")
    with field.held():
        after = field(x, 0.5)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, field(x, 0.5), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_an_optimisers_step_makes_a_prefix_stale_and_the_base_model_has_its_own(
    folder: Path, conditions: Conditions
) -> None:
    denoiser = denoiser_of(folder, "shared")
    field, x = denoiser.velocity(conditions), normal(5, 1, *denoiser.latent_shape(conditions))
    with denoiser.policy.disabled():
        base = field(x, 0.5)
    policy = field(x, 0.5)
    with field.held():
        torch.testing.assert_close(field(x, 0.5), policy, rtol=1e-5, atol=1e-6)
        with denoiser.policy.disabled():
            torch.testing.assert_close(field(x, 0.5), base, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(field(x, 0.5), policy, rtol=1e-5, atol=1e-6)
        next(iter(denoiser.policy.weights().values())).add_(1e-3)
        with pytest.raises(StalePrefixError):
            field(x, 0.5)
    assert float((base - policy).abs().max()) > 1e-3


def a_group(denoiser: Denoiser, conditions: Conditions, steps: int = STEPS) -> CandidateGroup:
    sigmas = denoiser.sigmas(steps, conditions)
    noise = normal(5, GROUP, *denoiser.latent_shape(conditions))
    with torch.no_grad():
        states = integrate(denoiser.velocity(conditions), noise, sigmas)
    return CandidateGroup(
        task_id="t",
        seeds=RolloutSeeds(0, (1, 2, 3)),
        policy=PolicyVersion(1, "d", 1, is_identity=False),
        sigmas=sigmas.numpy(),
        token_mask=(np.arange(noise.shape[1]) % 3 == 0),
        images=np.zeros((GROUP, 64, 64, 3), dtype=np.uint8),
        background_drift=np.zeros(GROUP, dtype=np.float32),
        states=states.transpose(0, 1).contiguous().numpy(),
    )


def learned(
    denoiser: Denoiser,
    conditions: Conditions,
    group: CandidateGroup,
    engine: Callable[[Tensor], object] = Tensor.backward,
    **objective: Any,
) -> dict[str, Tensor]:
    """Return the gradient of every LoRA tensor that an update of a group leaves."""
    config = ObjectiveConfig(**{"anchors": 2, "clip": 0.05, **objective})
    steps = len(group.sigmas) - 1
    sde = SdeConfig() if config.algorithm == "flow_grpo" else None
    work = GroupWork(None, None, np.array([0.4, -1.2, 1.5, -0.7]), (1, 3), tuple(range(steps)), on_policy=True)
    shape = RunShape(0, "euler", steps, 4, 0, {}, sde)
    update = UPDATES[config.algorithm](denoiser, group, conditions, work, config, shape, 1)
    update.prepare(None, lambda: None, on_policy=True, again=False)  # type: ignore[arg-type, return-value]
    update.learn(1.0, engine, Statistics())
    weights = denoiser.policy.weights()
    gradients = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
    for weight in weights.values():
        weight.grad = None
    return gradients


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor], factor: float = 1.0) -> None:
    assert found.keys() == expected.keys()
    whole = max(float(gradient.norm()) for gradient in expected.values())
    assert whole > 0
    for name, gradient in expected.items():
        assert float((found[name] / factor - gradient).norm()) <= 1e-5 * max(float(gradient.norm()), 1e-3 * whole), name


@pytest.mark.parametrize(
    ("guidance", "objective"),
    [
        (1.0, {}),
        (4.0, {}),
        (1.0, {"anchor_path": "step"}),
        (1.0, {"reference_penalty": 0.5, "norm_penalty": 0.1}),
        (1.0, {"algorithm": "flow_grpo"}),
        (1.0, {"algorithm": "diffusion_nft"}),
        (1.0, {"algorithm": "fdfo"}),
    ],
    ids=["chain", "chain-guided", "step", "penalised", "flow_grpo", "diffusion_nft", "fdfo"],
)
def test_every_loras_gradient_is_that_of_whole_passes(
    folder: Path, conditions: Conditions, guidance: float, objective: dict[str, Any]
) -> None:
    plain, shared = (denoiser_of(folder, prefix, guidance) for prefix in ("none", "shared"))
    group, modes = a_group(plain, conditions), modes_of(shared)
    expected = learned(plain, conditions, group, **objective)
    assert_alike(learned(shared, conditions, group, **objective), expected)
    assert modes.count("cached") > modes.count("extract") > 0
    # Text and source are learned from, too.
    assert all(expected[f"transformer_blocks.0.attn.{name}.lora_B.weight"].any() for name in ("to_k", "to_v"))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_it_is_exact_with_two_sources_and_text_between_them(folder: Path, guidance: float) -> None:
    editor = load_editor(QWEN_21.editor(folder), seed=0)
    conditions = editor.encode_image(source(), "make it red", source(96, 64))
    plain, shared = (denoiser_of(folder, prefix, guidance) for prefix in ("none", "shared"))
    group, modes = a_group(plain, conditions), modes_of(shared)
    field = shared.velocity(conditions)
    with torch.no_grad(), field.held():
        noise = torch.from_numpy(group.states[:, 0].copy())
        states = integrate(field, noise, torch.from_numpy(group.sigmas)).transpose(0, 1)
    assert float((states - torch.from_numpy(group.states)).abs().max()) <= 1e-6 * max(1.0, float(states.abs().max()))
    assert_alike(learned(shared, conditions, group), learned(plain, conditions, group))
    assert modes.count("cached") > modes.count("extract") > 0


@pytest.mark.parametrize("kept", ["recompute", "selective"])
def test_recomputed_activations_and_an_engine_that_scales_leave_the_same_gradients(
    folder: Path, conditions: Conditions, kept: Activations
) -> None:
    plain, shared = (denoiser_of(folder, prefix) for prefix in ("none", "shared"))
    group = a_group(plain, conditions)
    expected = learned(plain, conditions, group)
    activations.arrange(shared.body, kept, compiled=False)
    asked = []

    def engine(scalar: Tensor) -> None:
        asked.append(scalar)
        (scalar * 0.25).backward()

    assert_alike(learned(shared, conditions, group, engine), expected, 0.25)
    # By one anchor a pass, and once more for what they share.
    assert len(asked) == 2 * STEPS + 1


def test_a_group_that_teaches_nothing_runs_backward_as_often(folder: Path, conditions: Conditions) -> None:
    shared, asked = denoiser_of(folder, "shared"), []

    def engine(scalar: Tensor) -> None:
        asked.append(float(scalar.detach()))
        scalar.backward()

    field, x = shared.velocity(conditions), normal(5, 1, *shared.latent_shape(conditions))
    with field.trained(engine) as backprop:
        backprop((field(x, 0.5) * 0.0).sum())
    assert asked == [0.0, 0.0]
    assert not any(weight.grad is not None and weight.grad.any() for weight in shared.policy.weights().values())


def test_memory_is_flat_in_the_number_of_steps(folder: Path, conditions: Conditions) -> None:
    denoiser = denoiser_of(folder, "shared")
    peaks = []
    for steps in (2, 6):
        group, live = a_group(denoiser, conditions, steps), Live()
        with torch.autograd.graph.saved_tensors_hooks(live.pack, live.unpack):
            learned(denoiser, conditions, group)
        peaks.append(live.peak)
    # What is left of each step is a few scalars of its diagnostics.
    assert 0 < peaks[0] <= peaks[1] < 1.001 * peaks[0]


class Live:
    """Counts the numbers that autograd keeps for backward passes."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> "Box":
        return Box(self, tensor)

    def unpack(self, box: "Box") -> Tensor:
        return box.tensor


class Box:
    def __init__(self, live: Live, tensor: Tensor) -> None:
        self.live, self.tensor = live, tensor
        live.now += tensor.numel()
        live.peak = max(live.peak, live.now)

    def __del__(self) -> None:
        self.live.now -= self.tensor.numel()


def test_where_everything_sees_the_target_nothing_can_be_shared(folder: Path) -> None:
    editor = KONTEXT.editor(folder).model_copy(update={"prefix": "shared"})
    with pytest.raises(ValueError, match=r"nothing can be computed once for all; set editor\.prefix=none"):
        load_denoiser(editor, seed=0)
    with pytest.raises(ValueError, match=r"set editor\.prefix=none"):
        check_model(editor, AcdConfig())
    check_model(config_of(folder, "shared"), AcdConfig(direction="to_text"))


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=compiling.GRAPHS)
@pytest.mark.parametrize("kept", ["store", "recompute"])
def test_compiled_blocks_read_a_prefix_whole_in_rollouts_and_in_training(
    folder: Path, conditions: Conditions, kept: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One graph for all lengths of text: what is ahead of the target may be longer without another one."""
    compiled = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr(activations.torch, "compile", compiled)
    plain, shared = (denoiser_of(folder, prefix) for prefix in ("none", "shared"))
    longer = load_editor(QWEN_21.editor(folder), seed=0).encode_image(source(), "Remove the small red car")
    groups = [a_group(plain, task) for task in (conditions, longer)]
    expected = [learned(plain, task, group) for task, group in zip((conditions, longer), groups, strict=True)]
    torch._dynamo.reset()
    activations.arrange(shared.body, kept, compiled=True)
    graphs = []
    for task, group, truth in zip((conditions, longer), groups, expected, strict=True):
        assert_alike(learned(shared, task, group), truth)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[1] == graphs[0]


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=compiling.GRAPHS)
@torch.no_grad()
def test_compiled_rollouts_with_a_recorder_have_one_graph_for_all_lengths(
    folder: Path, conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    denoiser = denoiser_of(folder, "shared", policy=MergedPolicy)
    longer = load_editor(QWEN_21.editor(folder), seed=0).encode_image(source(), "Remove the small red car")
    x, mask = normal(5, 2, *denoiser.latent_shape(conditions)), torch.arange(16) % 3 == 0
    expected = [denoiser.velocity(task)(x, 0.5) for task in (conditions, longer)]
    denoiser.body.arrange(fp8=False)
    for block in denoiser.body.blocks:
        block.attn.set_processor(denoiser.body.processor(block, None))
    torch._dynamo.reset()
    compiling.compile_blocks(denoiser.body)
    graphs = []
    for task, truth in zip((conditions, longer), expected, strict=True):
        field, counted = denoiser.velocity(task), torch.from_numpy(task.text_valid)
        with field.held():
            torch.testing.assert_close(field(x, 0.5), truth, rtol=1e-4, atol=1e-4)
            with denoiser.recording((0,), mask, counted, "to_text"):
                torch.testing.assert_close(field(x, 0.5), truth, rtol=1e-4, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[1] == graphs[0]
