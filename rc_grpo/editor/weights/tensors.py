"""Whether a folder holds every tensor that a model of transformers has, by headers: no weights are read.

So that what is missing is said before anything starts on it, and where a program that loads it would not say it.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from rc_grpo.editor.weights.on_disk import ModelFilesError, check_weights


def require_tensors(folder: Path, kind: Any) -> None:
    """Hold the tensors in a folder against a model; one that was quantised is passed over, as its have other names.

    Args:
        folder: of one model, as ``save_pretrained`` writes it.
        kind: its class in transformers.

    Raises:
        ModelFilesError: a tensor of the model is in no file, or has another shape there.
    """
    config = kind.config_class.from_pretrained(folder)
    if getattr(config, "quantization_config", None) is not None:
        return
    _, found = kind.from_pretrained(
        None,
        config=config,
        state_dict=_held(folder),
        device_map="meta",
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    lacking, misshapen = sorted(found["missing_keys"]), sorted(entry[0] for entry in found["mismatched_keys"])
    for how, names in (("lacks", lacking), ("has another shape of", misshapen)):
        if names:
            first = ", ".join(names[:3])
            raise ModelFilesError(f"{folder} {how} {len(names)} of the tensors of a {kind.__name__} (first: {first})")


def _held(folder: Path) -> dict[str, torch.Tensor]:
    """Return a folder's tensors by name, of their shapes and without entries."""
    held = {}
    for file in check_weights(folder):
        with safe_open(folder / file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                held[name] = torch.empty(opened.get_slice(name).get_shape(), dtype=torch.bfloat16, device="meta")
    return held
