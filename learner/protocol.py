"""What the control loop asks of a learner; it comes in two kinds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from learner.group import UpdateReport
from rc_grpo.messages import PolicyVersion, ScoredGroup
from rc_grpo.waiting import Waits


class Learner(Protocol):
    """Turns batches into versions: `learner.group.LearnerGroup`, or `deploy.run.still.StillLearner`."""

    waits: Waits
    weights: Any

    @property
    def is_open(self) -> bool:
        """It can be asked."""
        ...

    @property
    def has_published(self) -> bool:
        """There is a version."""
        ...

    @property
    def version(self) -> PolicyVersion:
        """The version last published."""
        ...

    async def open(self) -> None:
        """Start it."""
        ...

    def close(self) -> None:
        """End it."""
        ...

    async def publish(self) -> tuple[PolicyVersion, Any]:
        """Return the current version and a reference to its weights."""
        ...

    async def update(self, batch: Sequence[ScoredGroup]) -> UpdateReport:
        """Learn from a batch."""
        ...

    async def export(self, folder: Path, *, average: bool = True) -> str | None:
        """Write the policy, or its moving average where one is kept, for diffusers.

        Returns:
            Its digest; None where there is nothing new to write.
        """
        ...

    async def save(self, folder: Path, tag: str) -> None:
        """Write what `load` needs to ``folder/tag``."""
        ...

    async def load(self, folder: Path, tag: str) -> None:
        """Go back to what `save` wrote."""
        ...
