"""Another way to admit late groups, to compare with the ledger's own: nobody overtakes the oldest group by far."""

from deploy.batches.ledger import Ledger
from rc_grpo.messages import ScoredGroup


class WindowedLedger(Ledger):
    """A ledger whose batches are taken from a window that begins at the oldest group that is not there yet.

    A slow group is overtaken by those of its window alone, so it does not grow too old to be learned from; where the
    window is spent, the learner waits for it. A window of one batch is first in, first out.

    Args:
        tasks, updates, groups_per_update, max_staleness, seed: as for the ledger.
        window: groups.
    """

    def __init__(
        self, tasks: int, updates: int, groups_per_update: int, max_staleness: int, seed: int, *, window: int
    ) -> None:
        if window < groups_per_update:
            raise ValueError(f"a window of {window} groups never holds a batch of {groups_per_update}")
        super().__init__(tasks, updates, groups_per_update, max_staleness, seed)
        self._window = window

    def cut(self, version: int) -> list[ScoredGroup] | None:
        """Return the next batch, of groups in the window alone."""
        if len(self._ready) < self._groups:
            return super().cut(version)
        missing = [ticket.number for ticket in (*self._under_way, *self._owed[:1])]
        end = min(missing, default=len(self._plan)) + self._window
        beyond = {ticket: scored for ticket, scored in self._ready.items() if ticket.number >= end}
        for ticket in beyond:
            del self._ready[ticket]
        try:
            return super().cut(version)
        finally:
            self._ready |= beyond
