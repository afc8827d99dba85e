"""The trained weights: LoRA on a transformer, their canonical form, and the proof that they arrived.

A sync that binds nothing must be impossible, so nothing here ignores a leftover: the modules that were wrapped must be
those that the architecture has for the targets, a version's keys must equal the model's, and the digest is taken again
from the weights that are in the model afterwards. It is of the bits that travel: in bfloat16 where the editor computes
in it, while the learner goes on from its own float32 weights.
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
from numpy.typing import NDArray
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from rc_grpo.config import LoraSettings
from rc_grpo.messages import PolicyVersion, VersionMismatchError
from rc_grpo.seeds import derive, uniform

ADAPTER = "policy"
"""Name of the adapter inside the transformer."""

Shapes = Mapping[str, tuple[int, int]]
"""Projections by full name, ``(out, in)``."""

TRAVELLING = {"F32": torch.float32, "BF16": torch.bfloat16}
"""Precisions that versions travel in, by their names in safetensors."""


def adapted(projections: Shapes, targets: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Return the projections that get a LoRA: those whose names end in a target, as PEFT matches them.

    Args:
        projections: of the model, see `rc_grpo.editor.family.Architecture`.
        targets: ends of names.

    Raises:
        ValueError: a target matches none.
    """
    for target in targets:
        if not any(_matches(name, (target,)) for name in projections):
            ends = sorted({name.split(".", 2)[-1] for name in projections})
            raise ValueError(
                f"editor.lora.targets names {target!r}, which is none of this editor's projections; it has "
                + ", ".join(ends)
            )
    return {name: shape for name, shape in projections.items() if _matches(name, targets)}


def count_parameters(shapes: Shapes, rank: int) -> int:
    """Return the number of weights of a LoRA on projections of these shapes."""
    return sum(rank * (out + width) for out, width in shapes.values())


def attach(transformer: Any, expected: Shapes, settings: LoraSettings, seed: int) -> dict[str, nn.Module]:
    """Freeze the transformer and wrap its projections with a float32 LoRA whose product is zero.

    It multiplies in the precision of what it is given, rounded as it travels (`rounded`): what learns is what acts, and
    in bfloat16 nothing as wide as the model is written in float32.

    Args:
        transformer: of diffusers, which knows adapters.
        expected: the projections that are to be wrapped, see `adapted`.
        settings: rank, scale and targets.
        seed: of the first weights.

    Returns:
        The wrapped modules by their full names.

    Raises:
        ValueError: others were wrapped.
    """
    transformer.requires_grad_(False)
    # By full names: an end of a name such as to_out may be that of a list of modules, too.
    transformer.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=sorted(expected)), adapter_name=ADAPTER
    )
    wrapped = {name: module for name, module in transformer.named_modules() if isinstance(module, LoraLayer)}
    _check_names(wrapped, expected, settings.targets)
    own = parameters(transformer)
    for parameter in own.values():
        parameter.data = parameter.data.float()
    for name in wrapped:
        pair = {key: own[key] for key in (f"{name}.lora_A.weight", f"{name}.lora_B.weight")}
        copy_into(pair, initial(name, expected[name], settings.rank, seed))
    for layer in wrapped.values():
        layer.cast_input_dtype_enabled = False
        for part in (layer.lora_A, layer.lora_B):
            part[ADAPTER] = _Factor(part[ADAPTER].weight)
    return wrapped


class _Factor(nn.Module):
    """A factor of a LoRA, float32, that multiplies in the precision of its input."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` in the dtype of ``x``, ``[..., in]``."""
        return nn.functional.linear(x, self.weight.to(x.dtype))


def confine(weights: Mapping[str, Tensor], rows: Mapping[str, int]) -> None:
    """Train the first rows of some projections alone: gradients of the others' rows of B are zero, and so they stay.

    Args:
        weights: of a LoRA; those that do not train are left alone.
        rows: how many, by a projection's full name.
    """
    for name, first in rows.items():
        matrix = weights.get(f"{name}.lora_B.weight")
        if matrix is not None and matrix.requires_grad:
            kept = (torch.arange(len(matrix), device=matrix.device) < first)[:, None]
            matrix.register_hook(kept.__mul__)  # type: ignore[no-untyped-call]


def targets(transformer: nn.Module, expected: Shapes) -> dict[str, nn.Module]:
    """Return the projections of a model that is not wrapped, by their full names.

    Raises:
        ValueError: one is not there.
    """
    modules = dict(transformer.named_modules())
    found = {name: modules[name] for name in expected if name in modules}
    _check_names(found, expected, ())
    return found


def _matches(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _check_names(found: Mapping[str, object], expected: Shapes, targets: tuple[str, ...]) -> None:
    if found.keys() != expected.keys():
        missing, foreign = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        raise ValueError(
            f"LoRA would be on {len(found)} modules where this transformer has {len(expected)} for {list(targets)}: "
            f"{len(missing)} missing (first: {missing[:2]}), {len(foreign)} too many (first: {foreign[:2]}); "
            "check editor.lora.targets against the names of its projections"
        )


def initial(name: str, shape: tuple[int, int], rank: int, seed: int) -> dict[str, Tensor]:
    """Return the first LoRA weights of a projection ``[out, in]``, float32 on the CPU by canonical name.

    A is drawn from counter-based seeds, so that version 0 is the same weights on every rank and worker; B is zero.
    """
    out, width = shape
    key = f"{name}.lora_A.weight"
    drawn = uniform(derive(seed, "lora", key), rank, width)
    return {
        key: (2.0 * drawn - 1.0) * width**-0.5,
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


def rounded(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights in a precision that they travel in; those that are in it already are not copied."""
    return {name: tensor.detach().to(dtype) for name, tensor in weights.items()}


def digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) over names, shapes, bytes in canonical order, and a precision other than float32."""
    sha = hashlib.sha256()
    names = sorted(weights)
    on_host = _on_host([weights[name].detach() for name in names])
    for name, tensor in zip(names, on_host, strict=True):
        precision = "" if tensor.dtype == torch.float32 else f"{tensor.dtype};"
        sha.update(f"{name}:{tuple(tensor.shape)};{precision}".encode())
        # NumPy knows no bfloat16.
        sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _on_host(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors contiguous on the CPU; those of a GPU in one transfer, which hundreds of small ones outlast."""
    if not any(tensor.is_cuda for tensor in tensors):
        return [tensor.cpu().contiguous() for tensor in tensors]
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    # Pinned pages are kept for the next version; fresh ones would cost as much as the hash.
    host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True).copy_(flat)
    parts = torch.split(host, [tensor.numel() for tensor in tensors])
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
        VersionMismatchError: the bytes are not safetensors in a precision that weights travel in, or are cut off.
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
    if entry["dtype"] not in TRAVELLING or not 0 <= first <= last <= len(values):
        names = " or ".join(TRAVELLING)
        raise ValueError(f"a tensor {entry} is not {names}, or ends behind the last of {len(values)} bytes")
    return values[first:last].view(TRAVELLING[entry["dtype"]]).view(entry["shape"])


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
    require_fitting(own, weights)
    for name, parameter in own.items():
        parameter.copy_(weights[name])


def require_fitting(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raise unless weights have the names and shapes of a model's.

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


def diffusers_state(transformer: Any, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``(state dict, adapter metadata)`` as a pipeline's ``save_lora_weights`` takes them for a transformer."""
    named = {name.replace(".weight", f".{ADAPTER}.weight"): tensor for name, tensor in weights.items()}
    layers = get_peft_model_state_dict(transformer, state_dict=named, adapter_name=ADAPTER)
    return dict(layers), dict(transformer.peft_config[ADAPTER].to_dict())
