"""What a judge is, and EditScore's scale, which every judge answers in."""

import math
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rc_grpo.messages import EditTask

FULL_MARKS = 25.0
"""Best value of a sub-score: EditScore asks for 0..25."""

SUCCESS, OVER_EDITING, NATURALNESS, ARTIFACTS = "success", "over_editing", "naturalness", "artifacts"
"""EditScore's four questions: was the edit made, was only that made, does it look natural, is it free of artifacts."""


class JudgeUnavailableError(RuntimeError):
    """The judge cannot score for now; another of its kind may."""


class JudgeSetupError(RuntimeError):
    """No score can succeed: wrong key, unknown model, no such address. Not a failed score but a wrong configuration."""


@dataclass(frozen=True)
class Verdict:
    """A judge's answer on one candidate.

    Attributes:
        reward: 0..1, or on the judge's own scale, as only differences within a minibatch count; NaN when the candidate
            could not be scored. Never a made-up number.
        subscores: parts by name, 0..25.
        reason: why scoring failed, or what the judge said.
        attempts: how often the judge was asked.
    """

    reward: float
    subscores: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    attempts: int = 1

    @classmethod
    def failure(cls, reason: str, attempts: int = 1) -> "Verdict":
        """Return the verdict of a candidate that could not be scored."""
        return cls(reward=math.nan, reason=reason, attempts=attempts)

    @classmethod
    def from_subscores(cls, subscores: Mapping[str, float], reason: str | None = None) -> "Verdict":
        """Aggregate the four sub-scores as EditScore does: the smaller of each pair, then the geometric mean.

        Raises:
            ValueError: one is missing, not finite, or outside 0..25.
        """
        for name in (SUCCESS, OVER_EDITING, NATURALNESS, ARTIFACTS):
            value = subscores.get(name, math.nan)
            if not 0.0 <= value <= FULL_MARKS:
                raise ValueError(f"sub-score {name} is {value}, not a number in 0..{FULL_MARKS:g}")
        consistency = min(subscores[SUCCESS], subscores[OVER_EDITING])
        quality = min(subscores[NATURALNESS], subscores[ARTIFACTS])
        return cls(math.sqrt(consistency * quality) / FULL_MARKS, subscores, reason)


class Judge(Protocol):
    """Scores the candidates of one group."""

    name: str

    def score(
        self, task: EditTask, images: NDArray[np.uint8]
    ) -> Sequence[Verdict] | Coroutine[Any, Any, Sequence[Verdict]]:
        """Score images ``[G, H, W, 3]`` of one task; one verdict each, in order. A plain method or ``async def``.

        A candidate that cannot be scored gets `Verdict.failure`; an exception means that none could.
        """
        ...


@runtime_checkable
class ServedJudge(Judge, Protocol):
    """A judge with something to start, to watch and to end."""

    async def open(self) -> None:
        """Return when it can score."""
        ...

    async def ready(self) -> None:
        """Return when it can score again."""
        ...

    async def metrics(self) -> str:
        """Return what serves it measures, as Prometheus text."""
        ...

    async def close(self) -> None:
        """End what it started."""
        ...
