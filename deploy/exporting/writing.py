"""A LoRA into a folder, in the layout of whoever is to load it; or merged into its transformer."""

from pathlib import Path
from typing import Literal

import safetensors.torch
import torch

from deploy.exporting.source import Source
from rc_grpo.config import ConfigError
from rc_grpo.editor import files, lora
from rc_grpo.editor.export import at_scale_1, write_for_diffusers, write_for_peft
from rc_grpo.editor.family import Family
from rc_grpo.editor.layouts import LAYOUTS, FirstNamed, under_first_names
from rc_grpo.editor.loading import load_architecture
from rc_grpo.editor.registry import find
from rc_grpo.editor.weights.merged import MergedPolicy

Layout = Literal["diffusers", "comfyui", "kohya", "peft"]
TRANSFORMER = "transformer"
SHARD = "5GB"


def check_layout(family: Family, to: Layout) -> None:
    """Check that a family's LoRA has a layout.

    Raises:
        ConfigError: with those that it has.
    """
    if to in LAYOUTS and not isinstance(family, FirstNamed):
        raise ConfigError(
            f"the family {family.name} says no first names of its modules (first_names), by which {to} knows them; "
            "export it to diffusers or peft, or --merged"
        )


def write_layout(source: Source, to: Layout, out: Path) -> Path:
    """Write a LoRA.

    Args:
        source: the LoRA.
        to: whose layout.
        out: folder.

    Returns:
        The weights' file.

    Raises:
        ValueError: it is no LoRA of the editor, or has no such layout.
    """
    editor, weights = source.config.editor, source.weights
    if to == "diffusers":
        return write_for_diffusers(weights, editor.lora, out)
    if to == "peft":
        # A folder's place is nobody else's business.
        base = Path(editor.model).resolve().name if Path(editor.model).is_dir() else editor.model
        return write_for_peft(weights, editor.lora, out, base)
    family = find(editor)
    assert isinstance(family, FirstNamed)
    projections = load_architecture(editor).projections
    pairs = under_first_names(at_scale_1(editor.lora, weights), projections, family.first_names)
    path = out / f"{source.name}.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(LAYOUTS[to](pairs), path, metadata={"format": "pt", "rc_grpo_digest": source.digest})
    return path


@torch.no_grad()
def write_merged(source: Source, out: Path) -> float:
    """Write the transformer with the LoRA in its weights, in ``editor.dtype``, as a folder of diffusers.

    The weights are those that rollout workers merge (see `rc_grpo.editor.weights.merged`), computed on the CPU:
    stochastically rounded, so that changes below the precision's spacing arrive on average.

    Args:
        source: the LoRA.
        out: folder; the transformer is in its folder `TRANSFORMER`.

    Returns:
        The share of the LoRA's change that the weights carry, see `rc_grpo.editor.weights.merged.MergedPolicy.arrived`.

    Raises:
        ValueError: it is no LoRA of the editor, or the editor cannot be loaded or written.
    """
    editor, weights = source.config.editor, source.weights
    expected = lora.adapted(load_architecture(editor).projections, editor.lora.targets)
    family = find(editor)
    transformer = family.load_transformer(editor, torch.device("cpu"), files.dtype(editor))
    if not hasattr(transformer, "save_pretrained"):
        raise ConfigError(f"the family {family.name} has a transformer that diffusers cannot write; leave --merged out")
    policy = MergedPolicy(transformer, expected, editor.lora, source.config.seed)
    policy.load(weights)
    transformer.save_pretrained(out / TRANSFORMER, max_shard_size=SHARD)
    return policy.arrived()
