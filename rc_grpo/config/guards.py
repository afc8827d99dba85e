"""What ends a run that goes wrong."""

from pydantic import Field, NonNegativeInt, PositiveFloat

from rc_grpo.config.base import Strict


class GuardConfig(Strict):
    """Guards: each ends the run with its cause and a non-zero exit, and is turned off by 0 or by none."""

    barren_updates: NonNegativeInt = Field(
        3, description="updates in a row without one group that could be learned from; 0 goes on for ever"
    )
    log_ratio: PositiveFloat | None = Field(
        10.0, description="bound on the magnitude of a candidate's log ratio in an update; none has no bound"
    )
    kl: PositiveFloat | None = Field(5.0, description="bound on KL(pi_old || pi_theta) in nats; none has no bound")
    falling_evaluations: NonNegativeInt = Field(
        2,
        description="held-out evaluations in a row that see the held-out reward fallen while the training reward has "
        "risen, or still praises the same edits; 0 goes on for ever",
    )
