"""A LoRA in the layouts of other loaders, which know a model's modules by the names of its first code.

Names and shapes are those that ComfyUI (``comfy/lora.py``, ``model_lora_keys_unet``), kohya's sd-scripts
(``networks/lora_flux.py``, ``networks/convert_flux_lora.py``) and musubi-tuner (``networks/lora.py``) read, as of
2026-11.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, int]]
"""As in `rc_grpo.editor.lora`, which loads model code: a family's names are read without any."""

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""By a module's first name: A ``[R, in]`` and B ``[out, R]``, whose product is added to its weight as it is."""


@dataclass(frozen=True)
class Blocks:
    """A list of a transformer's blocks under its first name.

    Attributes:
        name: in the model's first code, such as ``double_blocks``.
        here: in diffusers, such as ``transformer_blocks``.
        modules: a block's modules by first name, each with the projections of diffusers that are its rows, in order.
    """

    name: str
    here: str
    modules: Mapping[str, tuple[str, ...]]


@runtime_checkable
class FirstNamed(Protocol):
    """What a family has beside `rc_grpo.editor.family.Family` if loaders of its models' first names take its LoRA."""

    first_names: Sequence[Blocks]


def under_first_names(weights: Mapping[str, Tensor], projections: Shapes, blocks: Sequence[Blocks]) -> Pairs:
    """Return a LoRA's pairs by the modules' first names.

    Projections that are one module there become one pair: their A below each other, their B along a diagonal of
    blocks, so that the product is theirs row by row. One without a LoRA among them gets a block of zeros, as loaders
    that split the pair again count equal blocks.

    Args:
        weights: by canonical name, see `rc_grpo.editor.lora.parameters`; to be applied at scale 1.
        projections: all of the model, see `rc_grpo.editor.family.Architecture`.
        blocks: of the family.

    Raises:
        ValueError: a projection has no first name.
    """
    pairs = {}
    left = {name.rsplit(".lora_", 1)[0] for name in weights}
    for kind in blocks:
        numbers = {int(found[1]) for name in left if (found := re.match(rf"{re.escape(kind.here)}\.(\d+)\.", name))}
        for number in sorted(numbers):
            for first, parts in kind.modules.items():
                names = [f"{kind.here}.{number}.{part}" for part in parts]
                if left.intersection(names):
                    pairs[f"{kind.name}.{number}.{first}"] = _joined(names, weights, projections)
                    left.difference_update(names)
    if left:
        raise ValueError(f"{min(left)} has no name in that layout; export it to diffusers or peft")
    return pairs


def comfyui(pairs: Pairs) -> dict[str, Tensor]:
    """Return the tensors of a file for ComfyUI, by the names that it takes for whatever model it runs."""
    return _named(pairs, lambda name: f"diffusion_model.{name}", "lora_A", "lora_B")


def kohya(pairs: Pairs) -> dict[str, Tensor]:
    """Return the tensors of a file as kohya's trainers write it, which ComfyUI, Forge and diffusers read as well."""
    return _named(pairs, lambda name: f"lora_unet_{name.replace('.', '_')}", "lora_down", "lora_up")


LAYOUTS = {"comfyui": comfyui, "kohya": kohya}
"""Of first names."""


def _named(pairs: Pairs, spelled: Callable[[str], str], down: str, up: str) -> dict[str, Tensor]:
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"{spelled(name)}.{down}.weight"] = a.contiguous()
        tensors[f"{spelled(name)}.{up}.weight"] = b.contiguous()
        # Loaders multiply by alpha / rank.
        tensors[f"{spelled(name)}.alpha"] = torch.tensor(float(len(a)))
    return tensors


def _joined(names: Sequence[str], weights: Mapping[str, Tensor], projections: Shapes) -> tuple[Tensor, Tensor]:
    rank = next(len(weights[key]) for name in names if (key := f"{name}.lora_A.weight") in weights)
    pairs = []
    for name in names:
        out, width = projections[name]
        a, b = weights.get(f"{name}.lora_A.weight"), weights.get(f"{name}.lora_B.weight")
        pairs.append((torch.zeros(rank, width) if a is None else a, torch.zeros(out, rank) if b is None else b))
    diagonal: Tensor = torch.block_diag(*(b for _, b in pairs))  # type: ignore[no-untyped-call]
    return torch.cat([a for a, _ in pairs]), diagonal
