"""klein's KV variant: what sources are that see themselves alone is computed once, and nothing comes out otherwise."""

from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from learner import activations
from rc_grpo.algorithm.solver import integrate
from rc_grpo.config import EditorConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.fast import compiling
from rc_grpo.editor.loading import load_architecture, load_editor
from rc_grpo.editor.registry import find
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.editor.weights.policy import AdapterPolicy
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal
from tests.families import KLEIN_KV, source, trained
from tests.unit.editor.test_several_sources import SIDE, references, stock_edit
from tests.unit.editor.test_shared_prefix import GROUP, STEPS, a_group, assert_alike, learned, modes_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert KLEIN_KV.make is not None
    KLEIN_KV.make(folder / KLEIN_KV.name)
    return folder


def config_of(folder: Path, prefix: str = "none") -> EditorConfig:
    return KLEIN_KV.editor(folder).model_copy(update={"resolution": SIDE, "sources": 4, "prefix": prefix})


@pytest.fixture(scope="module")
def conditions(folder: Path) -> Conditions:
    """Of three sources."""
    editor = load_editor(config_of(folder), seed=0)
    return editor.encode_image(source(SIDE, SIDE), "make it red", *references(2))


def denoiser_of(folder: Path, prefix: str, policy: PolicyMaker = AdapterPolicy) -> Denoiser:
    config = config_of(folder, prefix)
    family = find(config)
    body = family.body(family.load_transformer(config, torch.device("cpu"), torch.float32), config)
    denoiser = Denoiser(body, config, 0, policy)
    denoiser.policy.load(trained(denoiser))
    return denoiser


@pytest.mark.parametrize("count", [0, 1])
def test_states_and_image_are_the_stock_pipelines_which_extracts_once_and_caches(folder: Path, count: int) -> None:
    config = config_of(folder)
    assert find(config).name == "flux2-klein-kv"
    stock, image = stock_edit(config, count)
    for prefix in ("none", "shared"):
        editor = load_editor(config_of(folder, prefix), seed=0)
        conditions = editor.encode_image(source(SIDE, SIDE), "put the second on the first", *references(count))
        assert set(conditions.arrays) == {"reference", "prompt"}
        field = editor.velocity(conditions)
        with torch.no_grad(), field.held():
            states = integrate(field, stock[0], editor.sigmas(STEPS, conditions))
        if prefix == "none":
            # The first step; the others read a cache there.
            assert torch.equal(states[1], stock[1])
        for own, theirs in zip(states, stock, strict=False):
            assert float((own - theirs).abs().max()) <= 1e-6 * max(1.0, float(theirs.abs().max()))
        ours = editor.decode(states[-1], conditions)[0]
        assert int(np.abs(ours.astype(int) - image).max()) <= 1


@pytest.mark.parametrize(("direction", "policy"), [("from_text", AdapterPolicy), ("to_text", MergedPolicy)])
@torch.no_grad()
def test_a_rollouts_states_and_recordings_are_those_of_the_whole_passes(
    folder: Path, conditions: Conditions, direction: str, policy: PolicyMaker
) -> None:
    states, densities = [], []
    for prefix in ("none", "shared"):
        denoiser = denoiser_of(folder, prefix, policy)
        modes, field = modes_of(denoiser), denoiser.velocity(conditions)
        noise = normal(5, GROUP, *denoiser.latent_shape(conditions))
        mask, counted = torch.arange(noise.shape[1]) % 3 == 0, torch.from_numpy(conditions.text_valid)
        with denoiser.recording((0, 1, 2), mask, counted, direction) as recorder, field.held():
            states.append(integrate(field, noise, denoiser.sigmas(STEPS, conditions)))
        densities.append(recorder.density)
        assert modes.count("extract") == (1 if prefix == "shared" else STEPS)
        assert modes.count("cached") == (STEPS if prefix == "shared" else 0)
    assert float((states[0] - states[1]).abs().max()) <= 1e-6 * max(1.0, float(states[0].abs().max()))
    torch.testing.assert_close(densities[1], densities[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", ["recompute", "selective"])
def test_every_loras_gradient_is_that_of_whole_passes_whatever_is_recomputed(
    folder: Path, conditions: Conditions, kept: Activations
) -> None:
    """diffusers' own cached passes go wrong under checkpointing: one dict tells all blocks where to look."""
    plain, shared = (denoiser_of(folder, prefix) for prefix in ("none", "shared"))
    group, modes = a_group(plain, conditions), modes_of(shared)
    expected = learned(plain, conditions, group)
    activations.arrange(shared.body, kept, compiled=False)
    assert_alike(learned(shared, conditions, group), expected)
    assert modes.count("cached") > modes.count("extract") > 0
    # Sources are learned from through their keys and values.
    first = "transformer_blocks.0.attn"
    assert all(expected[f"{first}.{name}.lora_B.weight"].any() for name in ("to_k", "to_v", "add_k_proj"))


def test_operations_are_those_of_text_and_target_behind_the_sources(folder: Path) -> None:
    none, shared = (config_of(folder, prefix) for prefix in ("none", "shared"))
    size = load_architecture(shared)
    tokens, whole = size.tokens(shared), size.tokens(none)
    assert tokens.prefix == tokens.sources == whole.sources
    pairs = 4 * size.width * size.layers / 1e12
    rest = tokens.text + tokens.target
    assert size.forward_tflop(tokens)[1] == pytest.approx(rest * tokens.total * pairs)
    ahead = size.prefill_tflop(tokens)
    assert ahead[1] == pytest.approx(tokens.sources**2 * pairs)
    for part in range(2):
        assert size.forward_tflop(tokens)[part] + ahead[part] == pytest.approx(size.forward_tflop(whole)[part])
    assert size.prefill_tflop(whole) == (0.0, 0.0)


def test_the_published_model_is_planned_for_without_its_files_and_has_its_own_pipeline() -> None:
    editor = EditorConfig(
        model="black-forest-labs/FLUX.2-klein-9b-kv", prefix="shared", resolution=1024, text_tokens=512
    )
    family = find(editor)
    size = family.architecture(editor.model_copy(update={"model": family.hub_ids[editor.model]}))
    tokens = size.tokens(editor)
    assert sum(size.forward_tflop(tokens)) == pytest.approx(85.3, abs=0.1)
    assert sum(size.forward_tflop(replace(tokens, prefix=0))) == pytest.approx(151.3, abs=0.1)
    with torch.device("meta"):
        full = family.full_size(editor.model_copy(update={"model": "full-size-klein-9b-kv"}))
        made = full.build_pipeline(torch.device("meta"), torch.bfloat16, text_encoder=None)
    assert type(made).__name__ == family.pipeline


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=compiling.GRAPHS)
@pytest.mark.parametrize("prefix", ["none", "shared"])
@pytest.mark.parametrize("kept", ["store", "recompute"])
def test_compiled_blocks_of_a_kind_share_a_graph_in_rollouts_and_in_training(
    folder: Path, conditions: Conditions, kept: Activations, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr(activations.torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, shared = denoiser_of(folder, "none"), denoiser_of(folder, prefix)
    group = a_group(plain, conditions)
    expected = learned(plain, conditions, group)
    torch._dynamo.reset()
    activations.arrange(shared.body, kept, compiled=True)
    graphs = []
    for _ in range(2):
        assert_alike(learned(shared, conditions, group), expected)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1] == graphs[0] > 0
    field, x = shared.velocity(conditions), normal(5, 2, *shared.latent_shape(conditions))
    with torch.no_grad(), field.held():
        torch.testing.assert_close(field(x, 0.5), plain.velocity(conditions)(x, 0.5), rtol=1e-4, atol=1e-4)
