"""What every kind of judge is configured by."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from rc_grpo.config.base import PoolConfig

Need = Literal["target", "caption"]


class JudgeConfig(PoolConfig):
    """What all kinds of judges have in common."""

    needs: ClassVar[tuple[Need, ...]] = ()
    """What each task must have beside source, instruction and mask, or every score of it fails."""

    asks_for_the_edit: ClassVar[bool] = True
    """Whether a finished edit earns more than an untouched source; not so where only damage is looked for."""

    relative: ClassVar[bool] = False
    """Whether candidates are compared with each other, so that a reward means something within its group alone."""

    weight: float = Field(
        1.0, ge=0, description="in the sum of the judges' z-scores; 0: scored, logged, evaluated, never learned from"
    )
    groups_in_flight: PositiveInt = Field(1, description="groups that one actor scores at the same time")
