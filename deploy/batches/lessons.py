"""What groups were worth: how many could be learned from, why the others could not, and what the judges last said."""

from collections import Counter
from collections.abc import Mapping

from learner.work import unlearnable
from rc_grpo.algorithm.rewards import SkipReason
from rc_grpo.config import ObjectiveConfig
from rc_grpo.messages import GroupScores

IN_WORDS: dict[SkipReason, str] = {
    "too_few_valid": "with too few scores",
    "tied_task_rewards": "scored alike throughout",
    "no_spread": "with too little spread",
}


class Lessons:
    """Counts groups by what there was to learn from them.

    Args:
        weights: of each judge by its name.
        objective: how rewards are combined and groups skipped.
    """

    def __init__(self, weights: Mapping[str, float], objective: ObjectiveConfig) -> None:
        self.weights = weights
        self._objective = objective
        self.groups: Counter[SkipReason | None] = Counter()
        self.last_failure: dict[str, str] = {}
        """By judge, why the last score that failed did."""

    def learn(self, scores: GroupScores) -> SkipReason | None:
        """Count a group, and return why it cannot be learned from, or None."""
        reason = unlearnable(scores, self.weights, self._objective)
        self.groups[reason] += 1
        if scores.failures:
            self.last_failure[scores.judge] = scores.failures[-1]
        return reason

    def forget(self) -> None:
        """Begin to count anew."""
        self.groups.clear()
        self.last_failure.clear()

    def in_words(self) -> str:
        """Return what was counted, such as ``12 groups with too few scores (judge: refused), 3 scored alike``."""
        if not self.groups:
            return "no group came in"
        parts = [
            f"{count} {'that can be learned from' if reason is None else IN_WORDS[reason]}"
            for reason, count in self.groups.most_common()
        ]
        said = "; ".join(f"the last failure of {judge}: {reason}" for judge, reason in self.last_failure.items())
        return f"of {self.groups.total()} groups {', '.join(parts)}" + (f"; {said}" if said else "")
