"""Held-out scores of a policy version, and what training did to them: gains paired by task."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from rc_grpo.messages import PolicyVersion

_ARRAYS = ("reward", "background_drift")
_BY_NAME = ("subscores", "rewards")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of the held-out tasks under one version, in the order of the tasks.

    Attributes:
        version: that acted.
        reward: ``[tasks]`` task reward; NaN where scoring failed.
        background_drift: ``[tasks]``.
        subscores: the judges' parts as ``JUDGE.PART``, each ``[tasks]``.
        rewards: each judge's own by name, those of weight 0 too, each ``[tasks]``.
        last_failure: why the last task that could not be scored could not; None where all were, and in what was read.
    """

    version: PolicyVersion
    reward: NDArray[np.float64]
    background_drift: NDArray[np.float64]
    subscores: dict[str, NDArray[np.float64]]
    rewards: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    last_failure: str | None = None

    def mean(self, judge: str | None = None) -> float:
        """Return the mean reward, of all judges by weight or of one alone; NaN where no task has one."""
        return _mean(self.reward if judge is None else self.rewards[judge])

    def metrics(self) -> dict[str, float]:
        """Return means by name."""
        judged = {f"reward/{name}": values for name, values in self.rewards.items()} | self.subscores
        parts = {
            f"heldout/{name.replace('.', '/')}": mean
            for name, values in judged.items()
            if not math.isnan(mean := _mean(values))
        }
        return {
            "heldout/reward": self.mean(),
            "heldout/background_drift": float(self.background_drift.mean()),
            "heldout/failed": float(np.isnan(self.reward).sum()),
        } | parts

    def as_json(self, tasks: Sequence[str]) -> str:
        """Return it as JSON, with the tasks' ids in the order of the arrays."""
        named = {name: {key: values.tolist() for key, values in getattr(self, name).items()} for name in _BY_NAME}
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return json.dumps(
            {"version": asdict(self.version), "metrics": self.metrics(), "tasks": list(tasks)} | arrays | named
        )

    @classmethod
    def from_json(cls, text: str) -> "HeldOut":
        """Read what `as_json` gave.

        Raises:
            ValueError: it is something else, or an array is not of as many numbers as there are tasks.
        """
        try:
            record = json.loads(text)
            reward, drift = (np.array(record[name], dtype=np.float64) for name in _ARRAYS)
            subscores, rewards = (
                {key: np.array(values, dtype=np.float64) for key, values in record[name].items()} for name in _BY_NAME
            )
            version, shape = PolicyVersion(**record["version"]), (len(record["tasks"]),)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"no held-out evaluation ({type(error).__name__}: {str(error)[:200]})") from error
        for name, values in {"reward": reward, "background_drift": drift, **subscores, **rewards}.items():
            if values.shape != shape:
                raise ValueError(f"no held-out evaluation: {name} is of {values.shape}, with {shape[0]} tasks")
        return cls(version, reward, drift, subscores, rewards)


@dataclass(frozen=True)
class PairedGain:
    """The change of the held-out reward between two versions on the same tasks with the same seeds.

    Attributes:
        before: mean reward of the tasks that both versions have a score for.
        after: likewise.
        gain: mean of the differences.
        standard_error: of that mean.
        tasks: number of pairs.
    """

    before: float
    after: float
    gain: float
    standard_error: float
    tasks: int

    @property
    def in_standard_errors(self) -> float:
        """The gain in units of its standard error."""
        return self.gain / self.standard_error if self.standard_error > 0 else math.copysign(math.inf, self.gain)

    def as_dict(self) -> dict[str, float]:
        """Return it for JSON."""
        return asdict(self) | {"gain_in_standard_errors": self.in_standard_errors}

    @classmethod
    def of_each_judge(cls, before: HeldOut, after: HeldOut) -> "dict[str, PairedGain]":
        """Compare two evaluations judge by judge."""
        return {name: cls.between(before, after, name) for name in before.rewards}

    @classmethod
    def between(cls, before: HeldOut, after: HeldOut, judge: str | None = None) -> "PairedGain":
        """Compare two evaluations task by task: the task reward, or one judge's. Tasks without both are left out."""
        earlier, later = (item.reward if judge is None else item.rewards[judge] for item in (before, after))
        both = ~(np.isnan(earlier) | np.isnan(later))
        if both.sum() < 2:
            raise ValueError(f"only {int(both.sum())} tasks have a score before and after; nothing can be compared")
        old, new = earlier[both], later[both]
        difference = new - old
        return cls(
            before=float(old.mean()),
            after=float(new.mean()),
            gain=float(difference.mean()),
            standard_error=float(difference.std(ddof=1) / math.sqrt(len(difference))),
            tasks=len(difference),
        )


def _mean(values: NDArray[np.float64]) -> float:
    return math.nan if np.isnan(values).all() else float(np.nanmean(values))
