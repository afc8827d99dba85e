"""DeepSpeed ranks and the optimiser."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rc_grpo.config.base import Fraction, PositiveFraction, Resources, Seconds, Strict

Activations = Literal["store", "selective", "recompute"]
Beta = Annotated[float, Field(ge=0, lt=1)]


class LearnerConfig(Strict):
    """DeepSpeed ranks and the optimiser."""

    ranks: PositiveInt = Field(1, description="processes that train together; one for each GPU")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        1, description="what DeepSpeed shards: nothing, optimiser, gradients too, parameters too"
    )
    threads: PositiveInt = Field(1, description="CPU threads of a rank")
    resources: Resources = Resources()
    activations: Activations = Field(
        "store",
        description="what the backward pass finds in memory: every block's activations, those of attention alone "
        "(the rest is recomputed), or none but the blocks' inputs",
    )
    fp8: bool = Field(
        False,
        description="frozen projections multiply in float8, forward and back; their LoRA does not. Needs "
        "`objective.old_path: recompute`; on a CPU it has the rounding and not the speed",
    )
    deterministic: bool = Field(
        False,
        description="the same batch gives the same bits on the same GPUs, for some speed; on CPUs it does so anyway",
    )
    anchors_per_pass: PositiveInt | None = Field(
        None, description="anchors of a group that go through the model together; none is all of them"
    )
    learning_rate: PositiveFraction = Field(1e-4, description="of AdamW, at its highest")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="of AdamW")
    weight_decay: Fraction = Field(1e-4, description="of AdamW")
    grad_norm: PositiveFloat = Field(1.0, description="gradients are scaled down to this norm")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="of the learning rate after the warm-up, to 0 at the end of the run"
    )
    warmup_updates: int = Field(0, ge=0, description="optimiser steps over which the learning rate rises")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="exponential moving average that is exported, if set")
    steps_per_rollout: PositiveInt = Field(1, description="optimiser steps on one batch of groups")
    start_from: Path | None = Field(
        None,
        description="folder of the LoRA that training begins with, such as an earlier run's `lora`, where every rank "
        "sees it, or `ORG/NAME@REVISION` on the Hugging Face Hub; none is an untrained one. "
        "`objective.reference_penalty` holds to the base model all the same",
    )
    start_deadline_s: Seconds = Field(900.0, description="all ranks must be up by then")
    call_deadline_s: Seconds = Field(3600.0, description="an update, a checkpoint or a publication must end by then")
    restarts: NonNegativeInt = Field(
        3, description="losses of a rank in a row, without a checkpoint in between, after which the run ends"
    )

    @property
    def shards_weights(self) -> bool:
        """Whether each rank has a part of the weights alone, and fetches the others' as it needs them."""
        return self.zero_stage == 3

    @model_validator(mode="after")
    def _ranks_have_a_gpu_each(self) -> Self:
        if self.ranks > 1 and 0 < self.resources.num_gpus <= 0.5:
            raise ValueError(
                f"learner.ranks = {self.ranks} with learner.resources.num_gpus = {self.resources.num_gpus:g} would put "
                "two ranks on one GPU, which NCCL refuses; give each more than half of one, or set learner.ranks=1"
            )
        return self
