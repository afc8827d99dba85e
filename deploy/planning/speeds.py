"""What GPUs were seen to do: the rates of `speeds.yaml`."""

from importlib import resources
from typing import Literal

import yaml
from pydantic import PositiveFloat

from rc_grpo.config.base import Strict


class UpdateSpeed(Strict):
    """The learner's TFLOP/s, forward and back.

    Attributes:
        projections: of what linear layers do.
        attention: of what attention does.
        projections_fp8: of linear layers with ``learner.fp8``; None: not measured.
    """

    projections: PositiveFloat
    attention: PositiveFloat
    projections_fp8: PositiveFloat | None = None


class GpuSpeeds(Strict):
    """What one GPU of a type does.

    Attributes:
        memory_gib: that can be used.
        source: where the rates are from.
        rollout: TFLOP/s by precision, those of float8 by ``rollout.fp8``.
        update: of an update.
        block_s: seconds that one of the learner's blocks takes at least, forward, and forward and back, however little
            goes through it: its host launches the kernels.
        sharded_block_s: the same under ZeRO 3, which fetches each block.
        judge_images_s: images a second of a judge: of one server of a GPU, of two that share it.
    """

    memory_gib: PositiveFloat
    source: str
    rollout: dict[Literal["bfloat16", "gemm", "all"], PositiveFloat]
    update: UpdateSpeed
    block_s: tuple[PositiveFloat, PositiveFloat]
    sharded_block_s: tuple[PositiveFloat, PositiveFloat]
    judge_images_s: tuple[PositiveFloat, PositiveFloat]


def speeds() -> dict[str, GpuSpeeds]:
    """Return the measured rates by GPU type."""
    text = resources.files("deploy.planning").joinpath("speeds.yaml").read_text()
    return {name: GpuSpeeds.model_validate(entry) for name, entry in yaml.safe_load(text).items()}
