"""The trained weights: LoRA on a FLUX transformer, their canonical form, and the proof that they arrived.

A sync that binds nothing must be impossible, so nothing here matches names by suffix or ignores a leftover: the number
of wrapped modules is computed from the architecture and asserted, a version's keys must equal the model's, and the
digest is taken again from the weights that are in the model afterwards.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import safetensors.torch
import torch
from diffusers import FluxTransformer2DModel
from numpy.typing import NDArray
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from rc_grpo.config import LoraSettings
from rc_grpo.messages import PolicyVersion, VersionMismatchError
from rc_grpo.seeds import derive

ADAPTER = "policy"
"""Name of the adapter inside the transformer."""

SINGLE_BLOCK_PROJECTIONS = {"attn.to_q", "attn.to_k", "attn.to_v"}


def expected_modules(transformer: FluxTransformer2DModel, targets: tuple[str, ...]) -> int:
    """Return how many modules of a transformer ``targets`` must match."""
    return modules_of(transformer.config.num_layers, transformer.config.num_single_layers, targets)


def modules_of(double: int, single: int, targets: tuple[str, ...]) -> int:
    """Return how many modules of so many blocks get a LoRA: each target in a double block, q, k and v in a single one.

    FLUX.1 with the eight default targets: 19 * 8 + 38 * 3 = 266.
    """
    in_single = sum(target in SINGLE_BLOCK_PROJECTIONS for target in targets)
    return double * len(targets) + single * in_single


def attach(transformer: FluxTransformer2DModel, settings: LoraSettings, seed: int) -> int:
    """Freeze the transformer and wrap its projections with a float32 LoRA whose product is zero.

    Returns:
        The number of wrapped modules.

    Raises:
        ValueError: another number of modules than the architecture has was wrapped.
    """
    transformer.requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets)),
        adapter_name=ADAPTER,
    )
    wrapped = sum(isinstance(module, LoraLayer) for module in transformer.modules())
    expected = expected_modules(transformer, settings.targets)
    if wrapped != expected:
        raise ValueError(
            f"LoRA wrapped {wrapped} modules where this transformer has {expected} for {list(settings.targets)}; "
            "check editor.lora.targets against the names of its attention projections"
        )
    own = parameters(transformer)
    for parameter in own.values():
        parameter.data = parameter.data.float()
    for name in targets(transformer, settings.targets):
        pair = {key: own[key] for key in (f"{name}.lora_A.weight", f"{name}.lora_B.weight")}
        first, second = pair.values()
        copy_into(pair, initial(name, (second.shape[0], first.shape[1]), settings.rank, seed))
    return wrapped


def targets(transformer: FluxTransformer2DModel, names: tuple[str, ...]) -> dict[str, nn.Module]:
    """Return the projections that ``names`` match as PEFT matches them, by their full name.

    Raises:
        ValueError: another number than the architecture has.
    """
    found = {
        name: module
        for name, module in transformer.named_modules()
        if any(name == target or name.endswith(f".{target}") for target in names)
    }
    expected = expected_modules(transformer, names)
    if len(found) != expected:
        raise ValueError(
            f"{len(found)} modules match {list(names)} where this transformer has {expected} of them; "
            "check editor.lora.targets against the names of its attention projections"
        )
    return found


def initial(name: str, shape: tuple[int, int], rank: int, seed: int) -> dict[str, Tensor]:
    """Return the first LoRA weights of a projection ``[out, in]``, float32 on the CPU by canonical name.

    A is drawn from counter-based seeds, so that version 0 is the same weights on every rank and worker; B is zero.
    """
    out, width = shape
    key = f"{name}.lora_A.weight"
    generator = torch.Generator().manual_seed(derive(seed, "lora", key))
    bound = width**-0.5
    return {
        key: torch.empty(rank, width).uniform_(-bound, bound, generator=generator),
        f"{name}.lora_B.weight": torch.zeros(out, rank),
    }


def parameters(transformer: nn.Module) -> dict[str, nn.Parameter]:
    """Return the LoRA parameters by canonical name (PEFT's own, without the adapter's name), sorted."""
    marker = f".{ADAPTER}"
    named = {
        name.replace(marker, ""): parameter
        for name, parameter in transformer.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }
    return dict(sorted(named.items()))


def state(transformer: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the LoRA weights, float32 on the CPU, in canonical order."""
    return copied(parameters(transformer))


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of weights, float32 on the CPU."""
    return {name: tensor.detach().to("cpu", torch.float32, copy=True) for name, tensor in weights.items()}


def digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) over names, shapes and float32 bytes in canonical order."""
    sha = hashlib.sha256()
    names = sorted(weights)
    on_host = _on_host([weights[name].detach().float() for name in names])
    for name, tensor in zip(names, on_host, strict=True):
        sha.update(f"{name}:{tuple(tensor.shape)};".encode())
        sha.update(tensor.numpy().data)
    return sha.hexdigest()


def _on_host(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors contiguous on the CPU; those of a GPU in one transfer, which hundreds of small ones outlast."""
    if not any(tensor.is_cuda for tensor in tensors):
        return [tensor.cpu().contiguous() for tensor in tensors]
    flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def is_identity(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether every LoRA product is zero, that is, every B matrix is."""
    return not any(bool(tensor.any()) for name, tensor in weights.items() if ".lora_B." in name)


def count_modules(weights: Mapping[str, Tensor]) -> int:
    """Return the number of modules a set of LoRA weights is for."""
    return len({name.rsplit(".lora_", 1)[0] for name in weights})


def serialise(weights: Mapping[str, Tensor]) -> bytes:
    """Return the weights as safetensors bytes."""
    return bytes(safetensors.torch.save(dict(weights)))


def pack(number: int, weights: Mapping[str, Tensor]) -> tuple[PolicyVersion, NDArray[np.uint8]]:
    """Return what weights claim to be as version ``number``, and their safetensors bytes: what a worker adopts."""
    version = PolicyVersion(number, digest(weights), count_modules(weights), is_identity(weights))
    return version, np.frombuffer(serialise(weights), dtype=np.uint8)


def deserialise(data: bytes | NDArray[np.uint8], device: torch.device | None = None) -> dict[str, Tensor]:
    """Read `serialise`'s bytes where they lie, or send them to a device in one piece and read them there.

    On the CPU the tensors share the memory of ``data``, which may be read-only: copy before writing.

    Raises:
        VersionMismatchError: the bytes are not float32 safetensors, or are cut off.
    """
    whole = np.frombuffer(data, dtype=np.uint8)
    try:
        begin = 8 + int.from_bytes(whole[:8].tobytes(), "little")
        header = json.loads(whole[8:begin].tobytes())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            values = torch.from_numpy(whole[begin:]).to(device)
        return {name: _slice(values, entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise VersionMismatchError(f"{len(whole)} bytes of LoRA weights cannot be read: {error}") from error


def _slice(values: Tensor, entry: Mapping[str, Any]) -> Tensor:
    first, last = entry["data_offsets"]
    if entry["dtype"] != "F32" or not 0 <= first <= last <= len(values):
        raise ValueError(f"a tensor {entry} is not float32, or ends behind the last of {len(values)} bytes")
    return values[first:last].view(torch.float32).view(entry["shape"])


def load(transformer: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Copy weights into the model's LoRA, all of them or none.

    Returns:
        The number of modules whose weights were replaced.

    Raises:
        VersionMismatchError: names or shapes differ from the model's.
    """
    own = parameters(transformer)
    copy_into(own, weights)
    return count_modules(own)


@torch.no_grad()
def copy_into(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy weights into tensors of the same names and shapes, all of them or none.

    Raises:
        VersionMismatchError: names or shapes differ.
    """
    if own.keys() != weights.keys():
        missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        raise VersionMismatchError(
            f"LoRA names do not fit the model: {len(missing)} of {len(own)} missing (first: {missing[:2]}), "
            f"{len(foreign)} unknown (first: {foreign[:2]})"
        )
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            raise VersionMismatchError(
                f"{name} has shape {tuple(weights[name].shape)}, the model {tuple(parameter.shape)}"
            )
    for name, parameter in own.items():
        parameter.copy_(weights[name])


@contextmanager
def disabled(transformer: nn.Module) -> Iterator[None]:
    """Run the base model inside the context."""
    layers = [module for module in transformer.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def diffusers_state(
    transformer: FluxTransformer2DModel, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``(state dict, adapter metadata)`` as ``FluxKontextPipeline.save_lora_weights`` takes them."""
    named = {name.replace(".weight", f".{ADAPTER}.weight"): tensor for name, tensor in weights.items()}
    layers = get_peft_model_state_dict(transformer, state_dict=named, adapter_name=ADAPTER)
    return dict(layers), dict(transformer.peft_config[ADAPTER].to_dict())
