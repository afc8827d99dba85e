"""The ledger: which groups are owed, under way, ready and learned from, and how old they may be.

A plain state machine without a clock or a cluster. The plan of a run is fixed beforehand -- ticket n is always the same
task with the same seeds -- so a lost or over-old group is made again from its ticket, and nothing is lost or doubled.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rc_grpo.algorithm.rewards import SkipReason
from rc_grpo.messages import RolloutSeeds, ScoredGroup
from rc_grpo.seeds import derive, permutation


@dataclass(frozen=True, order=True)
class Ticket:
    """One group that the run owes.

    Attributes:
        number: position in the plan.
        wave: the update it is planned for.
        task: index of the task in the training data.
        repeat: how many earlier groups of the same wave are of the same task, as where an epoch ends within it.
        attempt: how many groups in its place could not be learned from.
    """

    number: int
    wave: int
    task: int
    repeat: int = 0
    attempt: int = 0


class Ledger:
    """Owner of the run's plan and of the staleness bound (rule 3 of the design).

    Args:
        tasks: number of training tasks.
        updates: planned updates.
        groups_per_update: P.
        max_staleness: how many versions old a group may be when it is learned from.
        seed: of the run; orders the tasks within each epoch.
        refills: groups that may be made in the place of one that cannot be learned from.
    """

    def __init__(
        self, tasks: int, updates: int, groups_per_update: int, max_staleness: int, seed: int, refills: int = 0
    ) -> None:
        if tasks < 1:
            raise ValueError("there are no training tasks to plan with")
        self._tasks = tasks
        self._groups = groups_per_update
        self._max_staleness = max_staleness
        self._seed = seed
        self._refills = refills
        self._plan = list(self._tickets(updates * groups_per_update))
        self._owed = list(self._plan)
        self._under_way: set[Ticket] = set()
        self._ready: dict[Ticket, ScoredGroup] = {}
        self._learned: set[int] = set()
        self.dropped: Counter[str] = Counter()
        """Groups that are made again from their ticket, by reason."""
        self.replaced: Counter[str] = Counter()
        """Groups in whose place another was made, by the reason why they could not be learned from."""

    @property
    def learned(self) -> int:
        """Number of groups that were learned from."""
        return len(self._learned)

    @property
    def counts(self) -> dict[str, int]:
        """How many tickets are in which state."""
        return {
            "owed": len(self._owed),
            "under_way": len(self._under_way),
            "ready": len(self._ready),
            "learned": self.learned,
            "dropped_stale": self.dropped["stale"],
            **{f"replaced_{reason}": count for reason, count in self.replaced.items()},
        }

    def dispatch(self, update: int) -> list[Ticket]:
        """Hand out every owed ticket that may start while the learner is about to make ``update`` (0-based)."""
        handed_out = []
        while self._owed and self._owed[0].wave <= update + self._max_staleness:
            handed_out.append(heapq.heappop(self._owed))
        self._under_way.update(handed_out)
        return handed_out

    def admit(self, ticket: Ticket, scored: ScoredGroup, version: int, unlearnable: SkipReason | None = None) -> bool:
        """Take a finished group in, unless it is too old already; then its ticket is owed again.

        In the place of one that cannot be learned from, a group of another task is owed, which is a function of the
        ticket alone: whoever rolls out, and whatever came before, the batch is filled with the same groups. Where so
        many attempts are spent as there may be, the last one is taken as it is.

        Args:
            ticket: under which it was made.
            scored: the group.
            version: the learner's current version number.
            unlearnable: why it cannot be learned from, or None.
        """
        if ticket not in self._under_way:
            raise ValueError(f"{ticket} is not under way; a group must be admitted once")
        self._under_way.remove(ticket)
        if self._stale(scored, version):
            self._drop(ticket)
            return False
        if unlearnable is not None and ticket.attempt < self._refills:
            self.replaced[unlearnable] += 1
            heapq.heappush(self._owed, self._in_place_of(ticket))
            return False
        self._ready[ticket] = scored
        return True

    def cut(self, version: int) -> list[ScoredGroup] | None:
        """Return the next batch, earliest tickets first, or None while too few groups are ready.

        Age is checked again: groups that grew too old while they waited are dropped and owed again.
        """
        for ticket in [ticket for ticket, scored in self._ready.items() if self._stale(scored, version)]:
            del self._ready[ticket]
            self._drop(ticket)
        if len(self._ready) < self._groups:
            return None
        tickets = sorted(self._ready)[: self._groups]
        self._learned.update(ticket.number for ticket in tickets)
        return [self._ready.pop(ticket) for ticket in tickets]

    def snapshot(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON takes it: which groups were learned from, and what was dropped.

        What is under way or ready is not in it. It is owed again after a restart, from the same tickets.
        """
        beyond = max(self._learned, default=-1) + 1
        missing = [number for number in range(beyond) if number not in self._learned]
        counted = {"dropped": dict(self.dropped), "replaced": dict(self.replaced)}
        return {"learned_below": beyond, "except": missing} | counted

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a `snapshot` of this plan: everything that it had not learned from is owed.

        Raises:
            ValueError: it is none, or of a longer plan.
        """
        try:
            if not 0 <= snapshot["learned_below"] <= len(self._plan):
                raise ValueError(f"groups below {snapshot['learned_below']} were learned from, of {len(self._plan)}")
            learned = set(range(snapshot["learned_below"])) - set(snapshot["except"])
            dropped, replaced = (Counter(dict(snapshot.get(name) or {})) for name in ("dropped", "replaced"))
        except (TypeError, LookupError, AttributeError, ValueError) as error:
            raise ValueError(
                f"the ledger in manifest.json is none of this run's ({error!r}); restore the checkpoint from a copy"
            ) from error
        self._learned, self.dropped, self.replaced = learned, dropped, replaced
        self._under_way.clear()
        self._ready.clear()
        # In the order of the plan, which is that of a heap.
        self._owed = [ticket for ticket in self._plan if ticket.number not in self._learned]

    def seeds(self, ticket: Ticket, task_id: str, group_size: int) -> RolloutSeeds:
        """Return the seeds of a ticket's group: a function of run seed, ticket, task id and candidate alone."""
        name = f"{task_id}#{ticket.repeat + 1}" if ticket.repeat else task_id
        if ticket.attempt:
            name = f"{task_id}#{ticket.number}.{ticket.attempt}"
        return RolloutSeeds.for_group(self._seed, ticket.wave, name, group_size)

    def _tickets(self, count: int) -> Iterator[Ticket]:
        before: Counter[tuple[int, int]] = Counter()
        for number in range(count):
            epoch, position = divmod(number, self._tasks)
            wave, task = number // self._groups, self._order(epoch)[position]
            yield Ticket(number, wave, task, before[wave, task])
            before[wave, task] += 1

    def _in_place_of(self, ticket: Ticket) -> Ticket:
        """Return the ticket of another task: first those that the wave has not, each once, then all in new orders."""
        first = ticket.wave * self._groups
        planned = {other.task for other in self._plan[first : first + self._groups]}
        turn = ticket.number - first + ticket.attempt * self._groups
        left = [task for task in self._shuffled("refill", ticket.wave, 0) if task not in planned]
        if turn >= len(left):
            lap, turn = divmod(turn - len(left), self._tasks)
            left = self._shuffled("refill", ticket.wave, lap + 1)
        return Ticket(ticket.number, ticket.wave, left[turn], attempt=ticket.attempt + 1)

    def _order(self, epoch: int) -> Sequence[int]:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._permutation = self._shuffled("epoch", epoch)
        return self._permutation

    def _shuffled(self, *key: int | str) -> list[int]:
        return permutation(derive(self._seed, *key), self._tasks)

    def _stale(self, scored: ScoredGroup, version: int) -> bool:
        return version - scored.receipt.policy.number > self._max_staleness

    def _drop(self, ticket: Ticket) -> None:
        self.dropped["stale"] += 1
        heapq.heappush(self._owed, ticket)
