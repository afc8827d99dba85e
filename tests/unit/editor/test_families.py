"""What every family of editors keeps, tried on a small model of each; the rows are in `tests.families`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from rc_grpo.algorithm import adjoint
from rc_grpo.algorithm.solver import integrate
from rc_grpo.config import EditorConfig
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.export import read_lora, save_lora
from rc_grpo.editor.fast import compiling
from rc_grpo.editor.loading import (
    load_architecture,
    load_denoiser,
    load_editor,
    load_pipeline,
    load_text_counter,
)
from rc_grpo.editor.registry import find
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.messages import Conditions, VersionMismatchError
from rc_grpo.seeds import normal
from tests.families import ROWS, Row, source, trained, write_models

STEPS = 3
INSTRUCTION = "make it red"
CASES = [(row, guidance) for row in ROWS for guidance in row.guidances]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
every_case = pytest.mark.parametrize(
    ("row", "guidance"), CASES, ids=[f"{row.name}-{guidance:g}" for row, guidance in CASES]
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


Encode = Callable[[EditorConfig], Conditions]


@pytest.fixture(scope="module")
def encoded() -> Encode:
    """The picture and `INSTRUCTION` as an editor of a configuration encodes them; who wants these alone loads none."""
    return cache(lambda config: load_editor(config, seed=0).encode_image(source(), INSTRUCTION))


def states_of_the_stock_pipeline(
    editor: EditorConfig, lora_folder: Path | None = None
) -> tuple[list[torch.Tensor], np.ndarray]:
    """Edit with diffusers' pipeline; return the target's latents ahead of each step, and the image."""
    pipeline = load_pipeline(editor)
    if lora_folder is not None:
        pipeline.load_lora_weights(lora_folder)
    seen, take_step = list[torch.Tensor](), pipeline.scheduler.step

    def watched(velocity: torch.Tensor, timestep: Any, state: torch.Tensor, **options: Any) -> Any:
        seen.append(state.clone())
        return take_step(velocity, timestep, state, **options)

    pipeline.scheduler.step = watched
    return seen, find(editor).edit(pipeline, editor, source(), INSTRUCTION, steps=STEPS, seed=5)


@torch.no_grad()
def states_of_ours(editor: Editor, conditions: Conditions, noise: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    states = integrate(editor.velocity(conditions), noise, editor.sigmas(STEPS, conditions))
    return states, editor.decode(states[-1], conditions)[0]


@every_case
def test_the_training_side_goes_through_the_stock_pipelines_states_to_its_image(
    row: Row, guidance: float, models: Path
) -> None:
    config = row.editor(models, guidance)
    editor = load_editor(config, seed=0)
    conditions = editor.encode_image(source(), INSTRUCTION)
    stock, image = states_of_the_stock_pipeline(config)
    states, ours = states_of_ours(editor, conditions, stock[0])
    for own, theirs in zip(states, stock, strict=False):
        assert float((own - theirs).abs().max()) <= row.within
    assert np.array_equal(ours, image)


@every_row
def test_a_trained_lora_edits_in_the_stock_pipeline_as_it_does_here(row: Row, models: Path, tmp_path: Path) -> None:
    config = row.editor(models)
    editor = load_editor(config, seed=0)
    conditions = editor.encode_image(source(), INSTRUCTION)
    weights = trained(editor)
    editor.policy.load(weights)
    save_lora(editor, weights, tmp_path)
    assert lora.digest(read_lora(config.lora, tmp_path)) == lora.digest(weights)
    stock, image = states_of_the_stock_pipeline(config, tmp_path)
    base, _ = states_of_the_stock_pipeline(config)
    states, ours = states_of_ours(editor, conditions, stock[0])
    assert float((states[STEPS - 1] - stock[STEPS - 1]).abs().max()) <= max(row.within, 1e-6)
    assert int(np.abs(ours.astype(int) - image).max()) <= 1
    assert float((states[STEPS - 1] - base[STEPS - 1]).abs().max()) > 0.01


@every_row
def test_the_sizes_from_the_files_are_those_of_the_model(row: Row, models: Path) -> None:
    config = row.editor(models)
    architecture, denoiser = load_architecture(config), load_denoiser(config, seed=0)
    assert architecture.layers == len(denoiser.body.blocks) == row.layers
    blocks = {id(module) for block in denoiser.body.blocks for module in block.modules()}
    linear = {
        name.removesuffix(".base_layer"): (module.out_features, module.in_features)
        for name, module in denoiser.transformer.named_modules()
        if isinstance(module, nn.Linear) and id(module) in blocks and ".lora_" not in name
    }
    assert dict(architecture.projections) == linear
    assert architecture.attention_rows.keys() == {name for name in linear if name.endswith(row.fused or ("-",))}
    parameters = sum(weight.numel() for name, weight in denoiser.transformer.named_parameters() if ".lora_" not in name)
    assert architecture.parameters == pytest.approx(parameters, rel=0.5 if row.make is None else 0.0)
    expected = lora.adapted(architecture.projections, config.lora.targets)
    assert denoiser.policy.modules == len(expected)


@every_row
def test_the_instructions_own_tokens_are_told_from_the_templates_and_from_padding(row: Row, models: Path) -> None:
    config = row.editor(models)
    editor = load_editor(config, seed=0)
    count = load_text_counter(config)
    for instruction in (INSTRUCTION, "user", "Add a cat in the top left"):
        valid = editor.encode_image(source(), instruction).text_valid
        assert valid.dtype == np.bool_
        assert valid.any()
        assert valid.sum() <= count(instruction).tokens <= count(instruction).slots == config.text_tokens
    # One character more is a token more, at most, and the template stays what it is.
    around = {count(text).tokens - int(editor.encode_image(source(), text).text_valid.sum()) for text in ("add", "red")}
    assert len(around) == 1
    with pytest.raises(ValueError, match=r"editor\.text_tokens is \d+"):
        editor.encode_image(source(), "a cat, a dog, a bird, " * 40)
    assert count("a cat, a dog, a bird, " * 40).objection is not None


@every_row
@torch.no_grad()
def test_a_recorder_changes_no_bit_and_counts_the_layers_own_attention(
    row: Row, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recomputed by hand from the queries and keys that the attention really used."""
    editor = load_editor(row.editor(models), seed=0)
    # Longer than the negative text by more than the image has tokens.
    conditions = editor.encode_image(source(), "replace the small cat by a large red balloon, please")
    field, valid = editor.velocity(conditions), torch.from_numpy(conditions.text_valid)
    x = normal(5, 2, *editor.latent_shape(conditions))
    mask = torch.arange(x.shape[1]) % 5 < 2
    layout = editor.body.bind(conditions, "prompt", 1.0).layout
    plain = field(x, 0.5)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    attend = nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        seen.append((query, key))
        return attend(query, key, *arguments, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    layers = tuple(range(row.layers))
    for direction in sorted(layout.directions):
        seen.clear()
        with editor.recording(layers, mask, valid, direction) as recorder:
            recorded = field(x, 0.5)
        assert torch.equal(plain, recorded)
        assert recorder.density.shape == (2, row.layers, 1)
        # Of two passes the one with the prompt comes first, and counts alone.
        for layer, (query, key) in enumerate(seen[row.calls - 1 : row.calls * row.layers : row.calls]):
            expected = by_hand(query, key, layout.text[valid], layout.target, mask, direction)
            torch.testing.assert_close(recorder.density[:, layer, 0], expected, rtol=1e-4, atol=1e-5)


def by_hand(
    query: torch.Tensor, key: torch.Tensor, text: torch.Tensor, target: slice, mask: torch.Tensor, direction: str
) -> torch.Tensor:
    """Return the concentration ``[B]`` of queries and keys ``[B, H, S, D]``; queries may be the last ones alone."""
    query, key = query.double(), key.double()
    ahead = key.shape[2] - query.shape[2]
    if direction == "from_text":
        logits = query[:, :, text] @ key[:, :, target].transpose(-1, -2) / query.shape[-1] ** 0.5
        mass = logits.softmax(-1)[..., mask].sum(-1).mean(dim=(1, 2))
        return (mass * mask.numel() / mask.sum()).float()
    logits = query[:, :, target.start - ahead : target.stop - ahead] @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    mass = logits.softmax(-1)[..., text].sum(-1).mean(1)
    return (mass[:, mask].mean(-1) / mass.mean(-1)).float()


@every_case
def test_the_gradient_through_a_rollout_is_autograds(row: Row, guidance: float, models: Path, encoded: Encode) -> None:
    denoiser = load_denoiser(row.editor(models, guidance), seed=0)
    denoiser.policy.load(trained(denoiser))
    conditions = encoded(row.editor(models, guidance))
    field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(STEPS, conditions)
    x = normal(5, 1, *denoiser.latent_shape(conditions))
    towards = normal(6, STEPS + 1, *x.shape)
    weights = denoiser.policy.weights()

    states = [x]
    for n in range(STEPS):
        states.append(states[-1] + float(sigmas[n + 1] - sigmas[n]) * field(states[-1], float(sigmas[n])))
    (torch.stack(states) * towards).sum().backward()
    of_all = gradients(weights)
    adjoint.backward(field, torch.stack(states).detach(), sigmas, towards)
    found = gradients(weights)
    assert float(of_all.abs().max()) > 0
    assert float((found - of_all).norm() / of_all.norm()) < 1e-5


def gradients(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Take all gradients, in one row; what leads to no output, as the last block's text does, has none."""
    taken = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights.values()]
    for weight in weights.values():
        weight.grad = None
    return torch.cat([gradient.flatten() for gradient in taken])


@every_row
def test_a_version_is_proved_and_one_of_other_names_is_refused(row: Row, models: Path) -> None:
    denoiser = load_denoiser(row.editor(models), seed=0)
    weights = trained(denoiser)
    version, data = lora.pack(1, weights)
    proof = denoiser.adopt(version, data, worker="w")
    assert proof.canary_shift > 0
    assert proof.digest == version.digest
    other = {name.replace("0.", "7.", 1): tensor for name, tensor in weights.items()}
    with pytest.raises(VersionMismatchError, match="names do not fit"):
        denoiser.adopt(*lora.pack(2, other), worker="w")
    with pytest.raises(VersionMismatchError, match="canary moved"):
        denoiser.adopt(replace(version, is_identity=True), data, worker="w")


@every_row
@torch.no_grad()
def test_rearranged_blocks_with_a_merged_lora_are_the_same_function(row: Row, models: Path, encoded: Encode) -> None:
    config = row.editor(models)
    plain = load_denoiser(config, seed=0)
    weights = trained(plain)
    plain.policy.load(weights)
    conditions = encoded(config)
    x = normal(5, 2, *plain.latent_shape(conditions))
    family = find(config)
    body = family.body(family.load_transformer(config, torch.device("cpu"), torch.float32), config)
    before = sum(weight.numel() for weight in body.transformer.parameters())
    body.arrange(fp8=False)
    merged = Denoiser(body, config, 0, MergedPolicy)
    merged.policy.load(weights)
    assert sum(weight.numel() for weight in body.transformer.parameters()) == before
    torch.testing.assert_close(
        merged.velocity(conditions)(x, 0.5), plain.velocity(conditions)(x, 0.5), rtol=1e-4, atol=1e-4
    )
    assert merged.policy.modules == plain.policy.modules


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=compiling.GRAPHS)
@every_row
def test_blocks_are_traced_whole_for_rollouts_and_for_training_with_and_without_a_recorder(
    row: Row, models: Path, encoded: Encode
) -> None:
    """What a GPU's compiler does with the graphs is not asked here; that there is one graph a block is."""
    config = row.editor(models)
    conditions = encoded(config)
    family = find(config)
    body = family.body(family.load_transformer(config, torch.device("cpu"), torch.float32), config)
    body.arrange(fp8=False)
    for denoiser in (Denoiser(body, config, 0, MergedPolicy), load_denoiser(config, seed=0)):
        x = normal(5, 2, *denoiser.latent_shape(conditions))
        field = denoiser.velocity(conditions)
        with torch.no_grad():
            expected = field(x, 0.5)
        for block in denoiser.body.blocks:
            block.compile(fullgraph=True, dynamic=False, backend="aot_eager")
        mask, counted = torch.arange(x.shape[1]) % 3 == 0, torch.from_numpy(conditions.text_valid)
        directions = denoiser.body.architecture.directions
        with torch.no_grad(), denoiser.recording(tuple(range(row.layers)), mask, counted, min(directions)):
            torch.testing.assert_close(field(x, 0.5), expected, rtol=1e-5, atol=1e-5)
        if any(weight.requires_grad for weight in denoiser.policy.weights().values()):
            field(x, 0.5).square().mean().backward()
            assert gradients(denoiser.policy.weights()).any()


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=compiling.GRAPHS)
@pytest.mark.parametrize("row", [row for row in ROWS if row.text_varies], ids=lambda row: row.name)
def test_instructions_of_all_lengths_share_compiled_blocks_with_a_recorder_and_in_training(
    row: Row, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    editor = load_editor(row.editor(models, 1.0), seed=0)
    tasks = [editor.encode_image(source(), words) for words in (INSTRUCTION, "Remove the small red car")]
    x, mask = normal(5, 2, *editor.latent_shape(tasks[0])), torch.arange(16) % 3 == 0
    expected = [editor.velocity(conditions)(x, 0.5).detach() for conditions in tasks]
    torch._dynamo.reset()
    compiling.compile_blocks(editor.body)
    graphs = []
    for conditions, truth in zip(tasks, expected, strict=True):
        field, counted = editor.velocity(conditions), torch.from_numpy(conditions.text_valid)
        got = field(x, 0.5)
        got.square().mean().backward()
        torch.testing.assert_close(got, truth, rtol=1e-4, atol=1e-4)
        for direction in sorted(editor.body.architecture.directions):
            with torch.no_grad(), editor.recording((0,), mask, counted, direction):
                torch.testing.assert_close(field(x, 0.5), truth, rtol=1e-4, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert len(tasks[0].text_valid) != len(tasks[1].text_valid)
    assert graphs[0] > 0
    assert graphs[1] == graphs[0]


@every_row
@torch.no_grad()
def test_an_evaluation_may_be_guided_otherwise_than_the_training(row: Row, models: Path, encoded: Encode) -> None:
    one, four = (load_denoiser(row.editor(models, guidance), seed=0) for guidance in (1.0, 4.0))
    conditions = encoded(row.editor(models, 1.0))
    x = normal(5, 2, *one.latent_shape(conditions))
    guided = one.velocity(conditions, 4.0)(x, 0.5)
    assert torch.equal(guided, four.velocity(conditions)(x, 0.5))
    assert not torch.equal(guided, one.velocity(conditions)(x, 0.5))


@every_row
def test_a_lora_of_attention_alone_leaves_the_mlps_rows_of_fused_projections_at_zero(
    row: Row, models: Path, encoded: Encode
) -> None:
    config = row.editor(models)
    conditions = encoded(config)
    config = config.model_copy(update={"lora": config.lora.model_copy(update={"fused": "attention"})})
    denoiser = load_denoiser(config, seed=0)
    optimiser = torch.optim.AdamW(denoiser.policy.weights().values(), lr=0.1)
    for number in range(2):
        x = normal(number, 1, *denoiser.latent_shape(conditions))
        denoiser.velocity(conditions)(x, 0.5).square().mean().backward()
        optimiser.step()
    rows = denoiser.body.architecture.attention_rows
    for name, weight in denoiser.policy.weights().items():
        if name.endswith(".lora_B.weight"):
            trained_rows = rows.get(name.removesuffix(".lora_B.weight"), len(weight))
            # What leads to no output, as the last block's text does, is not trained.
            assert weight[:trained_rows].any() or weight.grad is None or not weight.grad.any()
            assert not weight[trained_rows:].any()


@every_row
def test_a_target_that_binds_nothing_is_refused_before_the_model_is_loaded(row: Row, models: Path) -> None:
    projections = load_architecture(row.editor(models)).projections
    with pytest.raises(ValueError, match=r"names 'attn\.to_outs', which is none of this editor's projections"):
        lora.adapted(projections, ("attn.to_outs",))
