"""Whether a folder holds every tensor that its model's architecture has, which a server does not ask.

vLLM joins projections of a layer into one and takes it for loaded with the first of them: where another is in no file,
whatever was in memory scores. Shapes and names are compared, by headers; no weights are read.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as KINDS

from reward_service.folders.judge_folder import JudgeFolderError, check_weights, way_out


def require_tensors(folder: Path) -> None:
    """Hold the tensors in a folder against the model that its configuration names.

    One that was quantised is passed over: its tensors have names of the method's own. So is one that is no
    vision-language model, which is refused for that.

    Raises:
        JudgeFolderError: the model has a tensor that is in no file, or of another shape there.
    """
    config = AutoConfig.from_pretrained(folder)
    if type(config) not in KINDS or getattr(config, "quantization_config", None) is not None:
        return
    kind = KINDS[type(config)]
    _, found = kind.from_pretrained(
        None,
        config=config,
        state_dict=_held(folder),
        device_map="meta",
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    wrong = {
        "lacks": sorted(found["missing_keys"]),
        "has another shape of": sorted(e[0] for e in found["mismatched_keys"]),
    }
    for how, names in wrong.items():
        if names:
            raise JudgeFolderError(
                f"{folder} {how} {len(names)} of the tensors of a {kind.__name__} (first: {', '.join(names[:3])}), in "
                f"whose place a server would take what is in memory; {way_out(folder)}"
            )


def _held(folder: Path) -> dict[str, torch.Tensor]:
    """Return a folder's tensors by name, of their shapes and without entries."""
    held = {}
    for file in check_weights(folder):
        with safe_open(folder / file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                shape = opened.get_slice(name).get_shape()
                held[name] = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    return held
