"""The noise levels that a model's own scheduler has, as its configuration file says them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift
from torch import Tensor

from rc_grpo.editor.weights.on_disk import ModelFilesError

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

_OTHERWISE = {
    "stochastic_sampling": "it draws noise at every step",
    "invert_sigmas": "its levels go from pictures to noise",
}
"""Settings under which a scheduler solves no ODE from noise to pictures."""


def read_scheduler(source: str, revision: str | None) -> Mapping[str, Any]:
    """Read the configuration of a pipeline's scheduler.

    Args:
        source: folder or hub id of the pipeline.
        revision: on the hub.

    Raises:
        ModelFilesError: it is none that an ODE's levels come from, which any other would give in silence.
    """
    kind = FlowMatchEulerDiscreteScheduler.__name__
    _, named = DiffusionPipeline.load_config(source, revision=revision).get("scheduler") or (None, None)
    config: Mapping[str, Any] = FlowMatchEulerDiscreteScheduler.load_config(
        source, subfolder="scheduler", revision=revision
    )
    if named != kind:
        raise ModelFilesError(
            f"its scheduler is a {named}, and a rollout integrates an ODE by {kind}'s levels; save the pipeline with "
            "that one (rollout.solver names the method)"
        )
    for setting, why in _OTHERWISE.items():
        if config.get(setting):
            raise ModelFilesError(
                f"its scheduler has {setting}: {why}, and a rollout is deterministic, from noise to pictures; save the "
                "pipeline without it"
            )
    return config


def levels(scheduler: Mapping[str, Any], steps: int, mu: float, even: Sequence[float] | None = None) -> Tensor:
    """Return the levels ``[T+1]`` float64 that diffusers' Euler scheduler of a configuration has at a shift.

    Args:
        scheduler: its configuration.
        steps: T.
        mu: the shift.
        even: levels ahead of it, T of them, instead of evenly spaced ones.
    """
    made = FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler))
    made.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps) if even is None else list(even), mu=mu)
    sigmas: Tensor = made.sigmas.double()
    return sigmas


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
