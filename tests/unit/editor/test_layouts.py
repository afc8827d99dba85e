"""A LoRA in another loader's layout is the same policy there: the same edits, or the same change of every weight."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from rc_grpo.algorithm.solver import integrate
from rc_grpo.config import EditorConfig
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.export import at_scale_1, read_lora, save_lora, write_for_diffusers, write_for_peft
from rc_grpo.editor.layouts import LAYOUTS, Blocks, FirstNamed, comfyui, kohya, under_first_names
from rc_grpo.editor.loading import load_architecture, load_editor, load_pipeline
from rc_grpo.editor.registry import find
from rc_grpo.images import Pixels
from tests.conftest import TINY
from tests.families import KLEIN, KONTEXT, QWEN, ROWS, Row, source, trained

STEPS = 2
INSTRUCTION = "make it red"
TWO_STREAMS_ALONE = tuple(
    f"transformer_blocks.{block}.attn.{name}"
    for block in range(2)
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
"""Diffusers' conversion of FLUX.1 knows a single block's rows at the published width alone."""

# What ComfyUI calls the weights of each model: read in its code, written down here as what is in a name.
COMFYUI = {
    "flux-kontext": r"double_blocks\.\d+\.(img|txt)_attn\.(qkv|proj)|single_blocks\.\d+\.linear1",
    "flux2-klein": r"double_blocks\.\d+\.(img|txt)_attn\.(qkv|proj)|single_blocks\.\d+\.linear[12]",
    "qwen-image-edit": r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|(img|txt)_mlp\.net\.(0\.proj|2))",
}
every_family = pytest.mark.parametrize("row", [row for row in ROWS if row.name in COMFYUI], ids=lambda row: row.name)
EDITING = [
    replace(KONTEXT, targets=TWO_STREAMS_ALONE),
    pytest.param(KLEIN, marks=pytest.mark.slow),
    pytest.param(QWEN, marks=pytest.mark.slow),
]


@pytest.fixture
def models(row: Row, tmp_path: Path) -> Path:
    if row.make is not None:
        row.make(tmp_path / row.name)
    return tmp_path


@cache
def published(row: Row) -> tuple[EditorConfig, FirstNamed, dict[str, tuple[int, int]], dict[str, Tensor]]:
    """The published model's sizes, and a LoRA on the first of its blocks; nothing is loaded."""
    config = row.editor(Path()).model_copy(update={"model": "full-size", "family": row.name})
    family, projections = find(config), dict(load_architecture(config).projections)
    assert isinstance(family, FirstNamed)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, (out, width) in lora.adapted(projections, row.targets).items():
        if "blocks.0." in name:
            weights[f"{name}.lora_A.weight"] = torch.randn(4, width, generator=generator)
            weights[f"{name}.lora_B.weight"] = torch.randn(out, 4, generator=generator)
    return config, family, projections, weights


def stock_edit(row: Row, models: Path, load: Callable[[Any], object]) -> Pixels:
    """The stock pipeline's edit, once ``load`` has done something to it."""
    config = row.editor(models)
    pipeline = load_pipeline(config)
    load(pipeline)
    return find(config).edit(pipeline, config, source(), INSTRUCTION, steps=STEPS, seed=5)


@torch.no_grad()
def our_edit(row: Row, models: Path, editor: Editor) -> Pixels:
    """Our own editor's edit, from the stock pipeline's noise."""
    conditions = editor.encode_image(source(), INSTRUCTION)
    tokens = editor.latent_shape(conditions)[0]
    seen: list[Tensor] = []

    def remember(module: object, arguments: object, named: dict[str, Tensor]) -> None:
        seen.append(named["hidden_states"][:, :tokens].clone())

    stock_edit(row, models, lambda pipeline: pipeline.transformer.register_forward_pre_hook(remember, with_kwargs=True))
    states = integrate(editor.velocity(conditions), seen[0], editor.sigmas(STEPS, conditions))
    return editor.decode(states[-1], conditions)[0]


def levels_apart(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("row", EDITING, ids=lambda row: row.name)
def test_every_layout_edits_in_the_real_loaders_as_our_editor_does(row: Row, models: Path, tmp_path: Path) -> None:
    config = row.editor(models)
    editor = load_editor(config, seed=0)
    weights = trained(editor)
    editor.policy.load(weights)
    ours = our_edit(row, models, editor)
    write_for_diffusers(weights, config.lora, tmp_path / "diffusers")
    of_diffusers = stock_edit(row, models, lambda pipeline: pipeline.load_lora_weights(tmp_path / "diffusers"))
    assert levels_apart(ours, of_diffusers) == 0
    assert levels_apart(ours, stock_edit(row, models, lambda pipeline: None)) > 2

    family = find(config)
    assert isinstance(family, FirstNamed)
    at_1, projections = at_scale_1(config.lora, weights), load_architecture(config).projections
    save_file(kohya(under_first_names(at_1, projections, family.first_names)), tmp_path / "kohya.safetensors")
    converted = stock_edit(
        row, models, lambda pipeline: pipeline.load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    )
    assert levels_apart(converted, of_diffusers) == 0

    write_for_peft(weights, config.lora, tmp_path / "peft", config.model)

    def wrap(pipeline: Any) -> None:
        PeftModel.from_pretrained(pipeline.transformer, tmp_path / "peft")

    assert levels_apart(stock_edit(row, models, wrap), of_diffusers) == 0


def test_without_the_model_diffusers_file_is_written_as_with_it(denoiser: Denoiser, tmp_path: Path) -> None:
    weights = trained(denoiser)
    one, other = (
        load_file(save_lora(denoiser, weights, tmp_path / "with")),
        load_file(write_for_diffusers(weights, TINY.lora, tmp_path / "without")),
    )
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    again = read_lora(TINY.lora, tmp_path / "without")
    assert all(again[name].equal(weights[name]) for name in weights)


@every_family
@pytest.mark.parametrize("layout", ["comfyui", "kohya"])
def test_names_are_those_that_comfyui_has_and_every_pair_tells_its_alpha(row: Row, layout: str) -> None:
    _, family, projections, weights = published(row)
    tensors = LAYOUTS[layout](under_first_names(weights, projections, family.first_names))
    down, up = ("lora_A", "lora_B") if layout == "comfyui" else ("lora_down", "lora_up")
    modules = {name.removesuffix(f".{down}.weight") for name in tensors if f".{down}." in name}
    assert tensors.keys() == {f"{m}.{end}" for m in modules for end in (f"{down}.weight", f"{up}.weight", "alpha")}
    prefix, pattern = "diffusion_model.", COMFYUI[row.name]
    if layout == "kohya":
        prefix, pattern = "lora_unet_", pattern.replace(r"\.", "_")
    for module in modules:
        assert re.fullmatch(pattern, module.removeprefix(prefix)), module
        rank = tensors[f"{module}.{down}.weight"].shape[0]
        assert tensors[f"{module}.{up}.weight"].shape[1] == rank == float(tensors[f"{module}.alpha"])


@every_family
def test_what_diffusers_makes_of_kohyas_names_is_what_was_exported_to_the_bit(row: Row) -> None:
    """At published widths, which its conversion of FLUX.1 is written for."""
    config, family, projections, weights = published(row)
    pipeline = getattr(diffusers, find(config).pipeline)
    read = pipeline.lora_state_dict(kohya(under_first_names(weights, projections, family.first_names)))
    read = read[0] if isinstance(read, tuple) else read
    for name, tensor in weights.items():
        assert read.pop(f"transformer.{name}").equal(tensor)
    assert not any(tensor.any() for name, tensor in read.items() if ".lora_B." in name)


@pytest.mark.parametrize("row", [KLEIN, QWEN], ids=lambda row: row.name)
def test_diffusers_reads_comfyuis_names_of_the_families_that_it_knows_them_of(row: Row) -> None:
    config, family, projections, weights = published(row)
    tensors = comfyui(under_first_names(weights, projections, family.first_names))
    # Its conversion of FLUX.2 takes no alpha; ours is the rank, and changes nothing.
    named = {name: tensor for name, tensor in tensors.items() if not name.endswith(".alpha")}
    read = getattr(diffusers, find(config).pipeline).lora_state_dict(named)
    for module in {name.rsplit(".lora_", 1)[0] for name in weights}:
        # An input's first numbers tell: the whole product is as large as the model's weight.
        ours, theirs = (
            of[f"{prefix}{module}.lora_B.weight"] @ of[f"{prefix}{module}.lora_A.weight"][:, :8]
            for of, prefix in ((weights, ""), (read, "transformer."))
        )
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_a_fused_pairs_product_is_the_projections_products_below_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {f"here.3.{name}": (rows, 5) for name, rows in (("q", 4), ("k", 4), ("mlp", 6))}
    weights = {}
    for name in ("here.3.q", "here.3.mlp"):
        weights[f"{name}.lora_A.weight"] = torch.randn(2, 5, generator=generator)
        weights[f"{name}.lora_B.weight"] = torch.randn(shapes[name][0], 2, generator=generator)
    pairs = under_first_names(weights, shapes, (Blocks("there", "here", {"in": ("q", "k", "mlp")}),))
    a, b = pairs["there.3.in"]
    q, mlp = (weights[f"here.3.{n}.lora_B.weight"] @ weights[f"here.3.{n}.lora_A.weight"] for n in ("q", "mlp"))
    torch.testing.assert_close(b @ a, torch.cat([q, torch.zeros(4, 5), mlp]))
    with pytest.raises(ValueError, match=r"here\.3\.mlp has no name in that layout; export it to diffusers or peft"):
        under_first_names(weights, shapes, (Blocks("there", "here", {"in": ("q",)}),))
