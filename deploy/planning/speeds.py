"""What GPUs were seen to do: the rates of `speeds.yaml`."""

from importlib import resources
from typing import Literal

import yaml
from pydantic import PositiveFloat

from rc_grpo.config.base import Strict
from rc_grpo.config.learner import Activations


class UpdateSpeed(Strict):
    """The learner under one activation policy.

    Attributes:
        tflop_s: of the operations that the method needs.
        kept: share of the activations that is in memory at the peak.
    """

    tflop_s: PositiveFloat
    kept: PositiveFloat


class GpuSpeeds(Strict):
    """What one GPU of a type does.

    Attributes:
        memory_gib: that can be used.
        source: where the rates are from.
        rollout: TFLOP/s by precision, those of float8 by ``rollout.fp8``.
        update: by activation policy.
        update_fp8: times as fast is an update with ``learner.fp8``; None: not measured.
        judge_images_s: images a second of a judge: of one server of a GPU, of two that share it.
    """

    memory_gib: PositiveFloat
    source: str
    rollout: dict[Literal["bfloat16", "gemm", "all"], PositiveFloat]
    update: dict[Activations, UpdateSpeed]
    update_fp8: PositiveFloat | None = None
    judge_images_s: tuple[PositiveFloat, PositiveFloat]


def speeds() -> dict[str, GpuSpeeds]:
    """Return the measured rates by GPU type."""
    text = resources.files("deploy.planning").joinpath("speeds.yaml").read_text()
    return {name: GpuSpeeds.model_validate(entry) for name, entry in yaml.safe_load(text).items()}
