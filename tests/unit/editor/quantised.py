"""What float8 rows promise, on every device."""

import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.editor.fast import kernels
from rc_grpo.editor.fast.kernels import Activation
from rc_grpo.editor.fast.rounding import FLOAT8


def assert_quantised(x: Tensor, activation: Activation) -> None:
    """Check ``quantise_rows(x)``: every entry to half a unit of its last place, every row's largest one at the top."""
    quantised, scale = kernels.quantise_rows(x, activation)
    first, second = x.float().chunk(2, dim=1)
    expected = {
        "none": x.float(),
        "gelu": functional.gelu(x.float(), approximate="tanh"),
        "swiglu": first * torch.sigmoid(first) * second,
    }[activation]
    largest = expected.abs().amax(dim=1, keepdim=True)
    # The format has 3 bits behind the first one, and below 2**-6 of its 448 a fixed spacing of 2**-9.
    bound = expected.abs() * (2**-4 + 2**-8) + largest * 2**-17
    assert ((quantised.float() * scale - expected).abs() <= bound).all()
    assert quantised.float().abs().amax(dim=1)[largest[:, 0] > 0].eq(torch.finfo(FLOAT8).max).all()
