import math

import pytest
import torch
from torch import Tensor

from rc_grpo.algorithm._mask import as_boolean


@pytest.mark.parametrize(
    ("mask", "shape"),
    [
        (torch.ones(1, 4), (4,)),
        (torch.ones(4), (1, 4)),
        (torch.ones(2, 3), (3, 2)),
        (torch.ones(6), (2, 3)),
        (torch.ones(1, 3), (2, 3)),
        (torch.ones(2, 3, dtype=torch.bool), (3, 2)),
    ],
)
def test_a_mask_of_another_shape_is_refused_even_if_its_size_fits(mask: Tensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="which has shape"):
        as_boolean(mask, shape, "which")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_zeros_and_ones_of_any_dtype_come_back_as_booleans(dtype: torch.dtype) -> None:
    mask = as_boolean(torch.tensor([0, 1, 1, 0], dtype=dtype), (4,))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [False, True, True, False]


@pytest.mark.parametrize("strange", [2.0, -1.0, 0.5, 255.0, math.nan, math.inf])
def test_one_value_that_is_neither_0_nor_1_is_refused_by_name_and_value(strange: float) -> None:
    with pytest.raises(ValueError, match=f"which holds {strange}, expected 0 and 1"):
        as_boolean(torch.tensor([0.0, 1.0, strange, 1.0]), (4,), "which")


def test_bytes_are_read_and_not_taken_for_booleans() -> None:
    with pytest.raises(ValueError, match="mask holds 255"):
        as_boolean(torch.tensor([0, 255], dtype=torch.uint8), (2,))
