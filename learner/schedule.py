"""The learning-rate schedule."""

import math
from collections.abc import Callable

from torch.optim.lr_scheduler import LambdaLR

from rc_grpo.config import LearnerConfig


def learning_rate_factor(config: LearnerConfig, total_steps: int) -> Callable[[int], float]:
    """Return the schedule as a function of the optimiser step: linear warm-up, then constant, or down to 0."""

    def factor(step: int) -> float:
        if step < config.warmup_updates:
            return (step + 1) / config.warmup_updates
        done = (step - config.warmup_updates) / max(1, total_steps - config.warmup_updates)
        match config.schedule:
            case "constant":
                return 1.0
            case "linear":
                return max(0.0, 1.0 - done)
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    return factor


def follow_plan(scheduler: LambdaLR) -> None:
    """Give the optimiser the rate that the schedule has for its next step, after a checkpoint was read.

    The checkpoint brings the rate of the plan that it was made under; the run may have been given more updates since.
    """
    named = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    for group, highest, factor in named:
        group["lr"] = highest * factor(scheduler.last_epoch)
