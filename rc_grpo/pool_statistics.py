"""What happened in a pool of workers."""

from dataclasses import dataclass, field

_REASONS_KEPT = 100


@dataclass
class PoolStatistics:
    """What happened in a pool since it started.

    Attributes:
        started: workers that were begun to be started; their count names the next.
        lost: workers that were replaced.
        left: workers that were let go when the pool shrank.
        rested: times that a worker could not serve for a while.
        failed_starts: workers that did not come up.
        reasons: the last of all these, in words.
    """

    started: int = 0
    lost: int = 0
    left: int = 0
    rested: int = 0
    failed_starts: int = 0
    reasons: list[str] = field(default_factory=list)

    def note(self, reason: str) -> None:
        """Remember why something happened."""
        self.reasons.append(reason)
        del self.reasons[:-_REASONS_KEPT]
