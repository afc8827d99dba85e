"""Frozen projections in float8 while a LoRA on them trains: both products that the base model has in an update.

A frozen projection has no weight gradient. What is left of it in an update is its output and the gradient of its input,
and both multiply in float8 here, row-wise scaled; the LoRA beside it stays what it is. The learner compares itself with
itself (``objective.old_path: recompute``), so that a ratio on policy is exactly 1.

Not here: delayed scales (a row's largest entry is known before it is rounded, at the cost of reading it once), and e5m2
for gradients (with a scale a row, the range that it has more is not needed, and its precision is).
"""

from typing import Any

import torch
from torch import Tensor, nn

from rc_grpo.editor.family import Body
from rc_grpo.editor.fast import fp8
from rc_grpo.editor.fast.kernels import quantise_rows

MULTIPLE = 16
"""Of which a side of a product in float8 must be one."""


class FrozenFp8Linear(nn.Module):
    """A frozen linear layer ``[..., in] -> [..., out]`` that gradients go through.

    Its weights are kept twice, in as many bytes as once in bfloat16: scaled by output row for the output, and by input
    column for the gradient.

    Args:
        linear: frozen; in and out are multiples of `MULTIPLE`.
    """

    weight: Tensor
    scale: Tensor
    back: Tensor
    back_scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        for names, rows in ((("weight", "scale"), weight), (("back", "back_scale"), weight.t().contiguous())):
            for name, made in zip(names, quantise_rows(rows, "none"), strict=True):
                # They are of the base model, and no part of a checkpoint.
                self.register_buffer(name, made, persistent=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the output in the dtype of ``x``."""
        output: Tensor = _Product.apply(x, self.weight, self.scale, self.back, self.back_scale, self.bias)  # type: ignore[no-untyped-call]
        return output


def quantise_frozen(body: Body) -> None:
    """Put a model's frozen projections into float8, those with a LoRA on them among others.

    Args:
        body: whose LoRA is attached already.

    Raises:
        ValueError: a projection has a side that float8 products do not have, or the GPU has no such products.
    """
    transformer: Any = body.transformer
    if transformer.device.type != "cpu":
        fp8.check(transformer.device, transformer.dtype, "learner.fp8")
    modules = dict(transformer.named_modules())
    for name, shape in body.architecture.projections.items():
        if any(side % MULTIPLE for side in shape):
            raise ValueError(
                f"learner.fp8 needs projections whose sides are multiples of {MULTIPLE}, and {name} has {list(shape)}"
            )
        wrapped = modules.get(f"{name}.base_layer")
        parent, _, child = (f"{name}.base_layer" if wrapped is not None else name).rpartition(".")
        setattr(modules[parent], child, FrozenFp8Linear(modules[f"{parent}.{child}"]))


class _Product(torch.autograd.Function):
    """``x W^T + bias`` with both of its products in float8; nothing but ``x`` has a gradient."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, scale: Tensor, back: Tensor, back_scale: Tensor, bias: Tensor | None
    ) -> Tensor:
        context.save_for_backward(back, back_scale)
        return fp8.multiply(fp8.quantise(x), weight, scale, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return fp8.multiply(fp8.quantise(gradient), *context.saved_tensors), None, None, None, None, None
