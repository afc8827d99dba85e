"""A trained policy as others load it: LoRA weights in diffusers' own format."""

import json
from pathlib import Path

from diffusers.loaders.lora_base import LoraBaseMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rc_grpo.config import EditorConfig, LoraSettings
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.loading import load_architecture
from rc_grpo.editor.lora import adapted, count_modules, diffusers_state

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
_PREFIX = "transformer."


def save_lora(denoiser: Denoiser, weights: dict[str, Tensor], folder: Path) -> Path:
    """Write LoRA weights so that the stock pipeline's ``load_lora_weights(folder)`` applies them, lora_alpha included.

    Args:
        denoiser: whose architecture the weights are for.
        weights: canonical names to float32 tensors, see `rc_grpo.editor.lora.state`.
        folder: created if need be.

    Returns:
        The file written.
    """
    layers, metadata = diffusers_state(denoiser.transformer, weights)
    folder.mkdir(parents=True, exist_ok=True)
    LoraBaseMixin.write_lora_layers(
        {_PREFIX + name: tensor for name, tensor in layers.items()},
        str(folder),
        is_main_process=True,
        weight_name=WEIGHTS_NAME,
        save_function=None,
        safe_serialization=True,
        lora_adapter_metadata={_PREFIX + name: value for name, value in metadata.items()},
    )
    return folder / WEIGHTS_NAME


def check_lora(editor: EditorConfig, folder: Path) -> None:
    """Check that `read_lora` gives weights for as many modules as an editor has, by the editor's configuration files.

    Raises:
        ValueError: it does not.
    """
    expected = len(adapted(load_architecture(editor).projections, editor.lora.targets))
    found = count_modules(read_lora(editor.lora, folder))
    if found != expected:
        raise ValueError(
            f"the LoRA in {folder} is for {found} modules, and {editor.model} has {expected} that editor.lora.targets "
            "names; set the targets that it was made with"
        )


def read_lora(settings: LoraSettings, folder: Path) -> dict[str, Tensor]:
    """Read what `save_lora` wrote back into canonical names.

    Args:
        settings: the LoRA that the weights must be for.
        folder: holding the weights' file.

    Raises:
        ValueError: there is no such file, it is not whole, or it was made with another rank or alpha.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(f"no LoRA at {path}; a run leaves one in runs/NAME/lora")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
            weights = {name.removeprefix(_PREFIX): file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    made_with = metadata.get(f"{_PREFIX}r"), metadata.get(f"{_PREFIX}lora_alpha")
    if None in made_with:
        raise ValueError(
            f"{path} does not say its rank and alpha; save it with transformer_lora_adapter_metadata, as "
            "a pipeline's save_lora_weights takes it"
        )
    if made_with != (settings.rank, settings.alpha):
        raise ValueError(
            f"{path} was made with (rank, alpha) = {made_with}, the configuration has "
            f"{(settings.rank, settings.alpha)}; set editor.lora.rank and editor.lora.alpha"
        )
    return weights
