"""Schedules that the number of an image's tokens shifts, stretched to a last level of their own."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift
from torch import Tensor

from rc_grpo.editor.stock.body import levels

SCHEDULER = MappingProxyType(
    {
        "shift": 1.0,
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "base_image_seq_len": 256,
        "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
        "time_shift_type": "exponential",
    }
)
"""Of the published models so scheduled, as far as it is not diffusers' default."""


def levels_by_tokens(
    scheduler: Mapping[str, Any], steps: int, tokens: int, even: Sequence[float] | None = None
) -> Tensor:
    """Return the levels ``[T+1]`` float64 of diffusers' Euler scheduler for an image of so many tokens.

    Args:
        scheduler: its configuration.
        steps: T.
        tokens: of the image that is made.
        even: levels ahead of the shift, T of them, instead of evenly spaced ones.

    Raises:
        ValueError: a single step, which cannot be both the first level and the terminal one.
    """
    config = FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler)).config
    if steps == 1 and config.shift_terminal:
        raise ValueError("this editor's schedule ends at a level of its own: it takes two steps or more")
    mu = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    return levels(scheduler, steps, mu, even)
