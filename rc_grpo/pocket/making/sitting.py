"""What a sitting of training leaves for the next: tensors in safetensors files that are small enough to be sent."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

PART_BYTES = 15 * 2**20
"""At most that many bytes of tensors a file; no tensor of the pocket models has so many."""


def save_state(folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write ``FOLDER/NAME-1-of-N.safetensors`` and so on, each with all of the facts in its header.

    A state of the same name is replaced. When that is cut off halfway, `load_state` refuses what is left.
    """
    parts: list[dict[str, Tensor]] = [{}]
    room = PART_BYTES
    for key, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        if stored.nbytes > room and parts[-1]:
            parts.append({})
            room = PART_BYTES
        parts[-1][key] = stored
        room -= stored.nbytes
    paths = [folder / f"{name}-{number}-of-{len(parts)}.safetensors" for number in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        partial = path.with_suffix(".partial")
        save_file(part, partial, metadata=dict(facts))
        partial.replace(path)
    for old in set(folder.glob(f"{name}-*-of-*.safetensors")) - set(paths):
        old.unlink()


def has_state(folder: Path, name: str) -> bool:
    """Return whether a sitting left a state of that name in the folder."""
    return any(folder.glob(f"{name}-*-of-*.safetensors"))


def load_state(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the facts of a state.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: the parts are of different savings.
    """
    paths = sorted(folder.glob(f"{name}-*-of-*.safetensors"))
    count = int(paths[0].stem.rsplit("-", 1)[1]) if paths else 1
    tensors: dict[str, Tensor] = {}
    facts: list[dict[str, str]] = []
    for number in range(1, count + 1):
        path = folder / f"{name}-{number}-of-{count}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: bring every file of the sitting's folder")
        with safe_open(path, "pt") as file:
            facts.append(file.metadata() or {})
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if len(paths) != count or any(fact != facts[0] for fact in facts):
        raise ValueError(f"the files {folder}/{name}-* are of different savings: use those of one")
    return tensors, facts[0]


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return them in bfloat16, for what a training forgives rounding of."""
    return {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}
