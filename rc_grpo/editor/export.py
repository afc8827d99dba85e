"""A trained policy as others load it: LoRA weights in diffusers' own format, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import LoraConfig
from torch import Tensor

from rc_grpo.config import EditorConfig, LoraSettings
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.loading import load_architecture
from rc_grpo.editor.lora import adapted, diffusers_state
from rc_grpo.editor.weights.lora_file import PREFIX, WEIGHTS_NAME, LoraFile, foreign, open_lora

__all__ = [
    "WEIGHTS_NAME",
    "at_scale_1",
    "check_lora",
    "for_any_loader",
    "read_lora",
    "save_lora",
    "write_for_diffusers",
    "write_for_peft",
]


def save_lora(denoiser: Denoiser, weights: Mapping[str, Tensor], folder: Path) -> Path:
    """Write LoRA weights so that the stock pipeline's ``load_lora_weights(folder)`` applies them, and any other loader.

    Alpha is multiplied into B and the file says that alpha is the rank: a loader that does not read diffusers' metadata
    (ComfyUI's) applies just the product, and diffusers takes no file with both metadata and alpha tensors. `read_lora`
    divides it out again, bit for bit if alpha / rank is a power of two.

    Args:
        denoiser: whose architecture the weights are for.
        weights: canonical names to float32 tensors, see `rc_grpo.editor.lora.state`.
        folder: created if need be.

    Returns:
        The file written.
    """
    layers, metadata = diffusers_state(denoiser.transformer, weights)
    settings = LoraSettings(rank=metadata["r"], alpha=metadata["lora_alpha"])
    return _write(layers, settings, metadata, folder)


def write_for_diffusers(weights: Mapping[str, Tensor], settings: LoraSettings, folder: Path) -> Path:
    """Write what `save_lora` writes, of weights whose model is not loaded.

    Args:
        weights: canonical names to float32 tensors, see `check_lora`.
        settings: that they are for.
        folder: created if need be.
    """
    return _write(weights, settings, _peft_config(weights, settings).to_dict(), folder)


def write_for_peft(weights: Mapping[str, Tensor], settings: LoraSettings, folder: Path, base: str) -> Path:
    """Write the adapter of a transformer as ``PeftModel.from_pretrained(transformer, folder)`` takes it.

    Args:
        weights: canonical names to float32 tensors, see `check_lora`; written as they are, alpha beside them.
        settings: that they are for.
        folder: created if need be.
        base: name of the model, for whoever reads the configuration.

    Returns:
        The weights' file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = _peft_config(weights, settings)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
    path = folder / "adapter_model.safetensors"
    named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in weights.items()}
    safetensors.torch.save_file(named, path, metadata={"format": "pt"})
    return path


def _peft_config(weights: Mapping[str, Tensor], settings: LoraSettings) -> LoraConfig:
    modules = sorted({name.rsplit(".lora_", 1)[0] for name in weights})
    return LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=modules)


def _write(layers: Mapping[str, Tensor], settings: LoraSettings, metadata: Mapping[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    told = {**metadata, "lora_alpha": settings.rank}
    LoraBaseMixin.write_lora_layers(
        for_any_loader(settings, layers),
        str(folder),
        is_main_process=True,
        weight_name=WEIGHTS_NAME,
        save_function=None,
        safe_serialization=True,
        lora_adapter_metadata={PREFIX + name: value for name, value in told.items()},
    )
    return folder / WEIGHTS_NAME


def for_any_loader(settings: LoraSettings, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by the names that pipelines know, with alpha / rank multiplied into B."""
    return {PREFIX + name: tensor for name, tensor in at_scale_1(settings, weights).items()}


def at_scale_1(settings: LoraSettings, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with alpha / rank multiplied into B; bit for bit undone by dividing if that is a power of two."""
    scale = settings.alpha / settings.rank
    return {name: tensor * scale if ".lora_B." in name else tensor for name, tensor in weights.items()}


def check_lora(editor: EditorConfig, folder: Path) -> dict[str, Tensor]:
    """Check that the LoRA in a folder is for an editor, by the editor's configuration files, and read it.

    Returns:
        What `read_lora` gives.

    Raises:
        ValueError: as `read_lora`; or it is for other modules than ``editor.lora.targets``, or of other shapes.
    """
    projections = load_architecture(editor).projections
    expected = adapted(projections, editor.lora.targets)
    example = f"{PREFIX}{next(iter(expected))}.lora_A.weight"
    file = open_lora(folder, example)
    for module in file.scales:
        if module not in projections:
            raise ValueError(foreign(file.path, f"{PREFIX}{module}.lora_A.weight", example))
    if file.scales.keys() != expected.keys():
        odd = min(file.scales.keys() ^ expected.keys())
        raise ValueError(
            f"the LoRA in {folder} is for {len(file.scales)} modules, and {editor.model} has {len(expected)} that "
            f"editor.lora.targets names ({odd} is {'' if odd in file.scales else 'not '}in it); set the targets that "
            "it was made with"
        )
    for module, (out, width) in expected.items():
        a, b = (file.shapes[f"{module}.lora_{matrix}.weight"] for matrix in "AB")
        if (a[1], b[0]) != (width, out):
            raise ValueError(
                f"{file.path}: the matrices of {PREFIX}{module} are for a projection from {a[1]} to {b[0]}, and that "
                f"of {editor.model} is from {width} to {out}; it was made for another model"
            )
    return _weights(editor.lora, file)


def read_lora(settings: LoraSettings, folder: Path) -> dict[str, Tensor]:
    """Read a LoRA in diffusers' format, such as `save_lora` writes, into canonical names.

    The product of its matrices acts as diffusers has it act: its alpha, alpha tensors and patterns, and rank-stabilised
    scales, are brought to ``settings.alpha`` by a factor in B. What else would act is refused by name.

    Args:
        settings: the LoRA that the weights must be for.
        folder: holding the weights' file.

    Returns:
        Float32 tensors, all finite.

    Raises:
        ValueError: there is no such file, it is not whole, it is no LoRA of a transformer's projections alone, of
            another rank, or has a NaN or an infinity in it.
    """
    return _weights(settings, open_lora(folder, f"{PREFIX}….{settings.targets[0]}.lora_A.weight"))


def _weights(settings: LoraSettings, file: LoraFile) -> dict[str, Tensor]:
    for module in file.scales:
        if (rank := file.rank(module)) != settings.rank:
            raise ValueError(
                f"{file.path} was made with rank {rank} ({PREFIX}{module}), the configuration has {settings.rank}; "
                "set editor.lora.rank"
            )
    return file.weights(settings.alpha / settings.rank)
