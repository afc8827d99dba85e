"""Tensors as the arrays of `rc_grpo.messages.Conditions`, bit for bit; numpy has no bfloat16: its bits go as int16."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's numbers on the CPU: float32, or the bits of bfloat16 as int16, half as many bytes."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.float().numpy()


def to_tensor(array: NDArray[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what `to_array` was given, in a precision, on a device; a copy."""
    tensor = torch.tensor(array)
    return (tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor).to(device, dtype)
