"""A LoRA adapter on a vision-language model: bound tensor by tensor, then folded into the weights.

PEFT takes an adapter whose names fit nothing and only warns, which leaves a judge that is the untrained base. So what
is in the model afterwards is compared with what is in the file.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from reward_service.folders.judge_folder import ADAPTER_CONFIG, check_safetensors

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_NAME = "judge"
_PREFIX = "base_model.model."

OLD_LAYOUT = {r"^visual\.": "model.visual.", r"^model\.(?!language_model\.|visual\.)": "model.language_model."}
"""Module names of Qwen2.5-VL before transformers 4.52, as adapters trained then still carry them, and today's."""


class AdapterError(ValueError):
    """An adapter cannot be applied to a model, or only in part; the message names what does not fit."""


@dataclass
class Bound:
    """A model with an adapter on it.

    Attributes:
        model: base and adapter, unmerged.
        tensors: how many tensors of the adapter are in it: all.
    """

    model: PeftModel
    tensors: int


def check_adapter_folder(folder: Path) -> None:
    """Tell whether a folder holds a LoRA adapter in safetensors; reads no weights.

    Raises:
        AdapterError: it does not.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise AdapterError(f"{folder} has no {ADAPTER_CONFIG}: it is not a PEFT adapter")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        check_safetensors(folder / ADAPTER_WEIGHTS)
    except (ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"adapter {folder}: {error}") from error
    if not isinstance(config, LoraConfig):
        raise AdapterError(f"adapter {folder} is of type {config.peft_type}; only LoRA can be merged")


def bind(model: PreTrainedModel, folder: Path) -> Bound:
    """Wrap a model with an adapter, every tensor of it, in float32.

    Raises:
        AdapterError: tensors have no place in the model, wrapped modules have no tensors, or shapes differ.
    """
    try:
        wrapped = PeftModel(model, PeftConfig.from_pretrained(str(folder), inference_mode=True), _NAME)
    except ValueError as error:
        raise AdapterError(f"adapter {folder} does not fit the base: {error}") from error
    filed = {_current(name): tensor for name, tensor in load_file(folder / ADAPTER_WEIGHTS).items()}
    wanted = _state(wrapped).keys()
    if unbound := filed.keys() - wanted:
        raise AdapterError(
            f"{len(unbound)} of the {len(filed)} tensors of adapter {folder} bind to nothing in the base "
            f"({_first(unbound)}): it was trained on another model, or its names were changed"
        )
    if missing := wanted - filed.keys():
        raise AdapterError(
            f"adapter {folder} binds only in part: its {ADAPTER_CONFIG} asks for {len(wanted)} tensors, {len(missing)} "
            f"of which its weights lack ({_first(missing)})"
        )
    try:
        wrapped.load_adapter(str(folder), _NAME, torch_device="cpu", key_mapping=OLD_LAYOUT)
    except (RuntimeError, ValueError, KeyError) as error:
        raise AdapterError(f"adapter {folder} does not fit the base: {error}") from error
    held = _state(wrapped)
    if lost := [name for name, tensor in filed.items() if not torch.equal(held[name].float(), tensor.float())]:
        raise AdapterError(f"{len(lost)} tensors of adapter {folder} did not arrive in the model ({_first(lost)})")
    return Bound(wrapped, len(filed))


@torch.no_grad()
def fold(bound: Bound) -> PreTrainedModel:
    """Add the adapter to the base's weights in place and return the base.

    Product and sum are float32 and rounded once to the weight's own dtype; PEFT by itself rounds the product, then the
    sum. One layer at a time, so that no second copy of the model is needed.

    Raises:
        AdapterError: a merged weight is not finite.
    """
    for name, layer in bound.model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        own = list(layer.get_base_layer().parameters(recurse=False))
        dtypes = [parameter.dtype for parameter in own]
        for parameter in own:
            parameter.data = parameter.data.float()
        try:
            layer.merge(safe_merge=True, adapter_names=[_NAME])
        except ValueError as error:
            raise AdapterError(f"merging {name.removeprefix(_PREFIX)}: {error}") from error
        for parameter, dtype in zip(own, dtypes, strict=True):
            parameter.data = parameter.data.to(dtype)
    return cast(PreTrainedModel, bound.model.unload())


def _state(wrapped: PeftModel) -> dict[str, Tensor]:
    # Embeddings are only there if the adapter trains them; asking PEFT to find that out would go to the hub.
    return dict(get_peft_model_state_dict(wrapped, adapter_name=_NAME, save_embedding_layers=False))


def in_current_layout(module: str) -> str:
    """Return a Qwen2.5-VL module's or tensor's name as today's transformers have it."""
    for old, new in OLD_LAYOUT.items():
        module = re.sub(old, new, module)
    return module


def _current(name: str) -> str:
    module = name.removeprefix(_PREFIX)
    return name.replace(module, in_current_layout(module))


def _first(names: Collection[str], limit: int = 3) -> str:
    return "first: " + ", ".join(sorted(names)[:limit])
