"""A trained policy as others load it: LoRA weights in diffusers' own format."""

import json
from pathlib import Path

from diffusers import FluxKontextPipeline
from safetensors import safe_open
from torch import Tensor

from rc_grpo.config import LoraSettings
from rc_grpo.editor.denoiser import KontextDenoiser
from rc_grpo.editor.lora import diffusers_state

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"


def save_lora(denoiser: KontextDenoiser, weights: dict[str, Tensor], folder: Path) -> Path:
    """Write LoRA weights so that ``FluxKontextPipeline.load_lora_weights(folder)`` applies them, lora_alpha included.

    Args:
        denoiser: whose architecture the weights are for.
        weights: canonical names to float32 tensors, see `rc_grpo.editor.lora.state`.
        folder: created if need be.

    Returns:
        The file written.
    """
    layers, metadata = diffusers_state(denoiser.transformer, weights)
    folder.mkdir(parents=True, exist_ok=True)
    FluxKontextPipeline.save_lora_weights(
        folder, transformer_lora_layers=layers, transformer_lora_adapter_metadata=metadata, weight_name=WEIGHTS_NAME
    )
    return folder / WEIGHTS_NAME


def read_lora(settings: LoraSettings, folder: Path) -> dict[str, Tensor]:
    """Read what `save_lora` wrote back into canonical names.

    Args:
        settings: the LoRA that the weights must be for.
        folder: holding the weights' file.

    Raises:
        ValueError: there is no such file, or it was made with another rank or alpha.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(f"no LoRA at {path}; a run leaves one in runs/NAME/lora")
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        weights = {name.removeprefix("transformer."): file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    made_with = metadata.get("transformer.r"), metadata.get("transformer.lora_alpha")
    if made_with != (settings.rank, settings.alpha):
        raise ValueError(
            f"{path} was made with (rank, alpha) = {made_with}, the configuration has "
            f"{(settings.rank, settings.alpha)}; set editor.lora.rank and editor.lora.alpha"
        )
    return weights
