import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deploy.batches.ledger import Ledger, Ticket
from rc_grpo.messages import EditTask, PolicyVersion, RolloutReceipt, RolloutSeeds, ScoredGroup


def scored(ticket: Ticket, version: int) -> ScoredGroup:
    task = EditTask(str(ticket.number), "add", b"", "", b"")
    receipt = RolloutReceipt(task.task_id, PolicyVersion(version, "d", 1, is_identity=False), "w", (), 0.0, {})
    return ScoredGroup(task, receipt, scores=None, group=ticket, conditions=None)  # type: ignore[arg-type]


def test_the_plan_visits_every_task_once_an_epoch_in_an_order_of_its_own() -> None:
    ledger = Ledger(tasks=10, updates=5, groups_per_update=4, max_staleness=5, seed=1)
    tickets = ledger.dispatch(0)
    first, second = ([ticket.task for ticket in tickets][start : start + 10] for start in (0, 10))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_the_plan_is_a_function_of_the_seed() -> None:
    plans = [Ledger(10, 5, 4, 5, seed).dispatch(0) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


@given(tasks=st.integers(1, 12), updates=st.integers(1, 6), groups=st.integers(1, 12), seed=st.integers(0, 99))
def test_no_two_groups_of_a_plan_are_the_same(tasks: int, updates: int, groups: int, seed: int) -> None:
    """Also where there are fewer tasks than groups in an update, or an epoch ends within one."""
    ledger = Ledger(tasks, updates, groups, max_staleness=updates, seed=seed)
    tickets = ledger.dispatch(0)
    seeds = [ledger.seeds(ticket, f"task-{ticket.task}", 3) for ticket in tickets]
    assert len({(one.reference, *one.deltas) for one in seeds}) == len(tickets) == updates * groups


def test_the_first_group_of_a_task_in_a_wave_has_the_seeds_of_the_design() -> None:
    ledger = Ledger(tasks=2, updates=1, groups_per_update=3, max_staleness=0, seed=5)
    first, second, again = ledger.dispatch(0)
    assert (first.repeat, second.repeat, again.repeat) == (0, 0, 1)
    assert ledger.seeds(first, "a", 4) == RolloutSeeds.for_group(5, 0, "a", 4)


def test_synchronous_work_starts_one_wave_at_a_time_and_comes_back_in_order() -> None:
    ledger = Ledger(tasks=20, updates=3, groups_per_update=4, max_staleness=0, seed=0)
    for update in range(3):
        tickets = ledger.dispatch(update)
        assert [ticket.wave for ticket in tickets] == [update] * 4
        assert ledger.cut(update) is None
        for ticket in reversed(tickets):
            ledger.admit(ticket, scored(ticket, update), update)
        batch = ledger.cut(update)
        assert batch is not None
        assert [item.group for item in batch] == tickets


def test_a_group_that_is_too_old_is_counted_and_made_again_under_the_same_ticket() -> None:
    ledger = Ledger(tasks=4, updates=2, groups_per_update=2, max_staleness=1, seed=0)
    first, *_ = ledger.dispatch(0)
    assert not ledger.admit(first, scored(first, version=0), version=2)
    assert ledger.counts["dropped_stale"] == 1
    assert ledger.dispatch(0) == [first]


def test_a_group_may_be_as_old_as_the_bound_and_no_older() -> None:
    ledger = Ledger(tasks=4, updates=3, groups_per_update=2, max_staleness=2, seed=0)
    first, second, *_ = ledger.dispatch(0)
    assert ledger.admit(first, scored(first, version=1), version=3)
    assert not ledger.admit(second, scored(second, version=0), version=3)
    assert ledger.counts == {"owed": 1, "under_way": 4, "ready": 1, "learned": 0, "dropped_stale": 1}


def test_a_group_that_grew_too_old_while_it_waited_is_counted_and_owed_again() -> None:
    ledger = Ledger(tasks=6, updates=2, groups_per_update=2, max_staleness=1, seed=0)
    tickets = ledger.dispatch(0)
    assert len(tickets) == 4
    assert ledger.admit(tickets[0], scored(tickets[0], version=0), version=0)
    for ticket in tickets[1:3]:
        assert ledger.admit(ticket, scored(ticket, version=1), version=1)
    batch = ledger.cut(version=2)
    assert batch is not None
    assert [item.group for item in batch] == tickets[1:3]
    assert ledger.counts == {"owed": 1, "under_way": 1, "ready": 0, "learned": 2, "dropped_stale": 1}
    assert ledger.dispatch(0) == tickets[:1]


def test_too_old_groups_do_not_make_a_batch_and_are_owed_even_so() -> None:
    ledger = Ledger(tasks=6, updates=1, groups_per_update=2, max_staleness=0, seed=0)
    first, second = ledger.dispatch(0)
    ledger.admit(first, scored(first, version=0), version=0)
    ledger.admit(second, scored(second, version=1), version=1)
    assert ledger.cut(version=1) is None
    assert ledger.counts == {"owed": 1, "under_way": 0, "ready": 1, "learned": 0, "dropped_stale": 1}


def test_dropped_tickets_are_owed_before_later_ones_whatever_order_they_were_dropped_in() -> None:
    ledger = Ledger(tasks=9, updates=4, groups_per_update=2, max_staleness=1, seed=0)
    tickets = ledger.dispatch(0)
    assert [ticket.number for ticket in tickets] == [0, 1, 2, 3]
    for number in (3, 0, 2):
        assert not ledger.admit(tickets[number], scored(tickets[number], version=0), version=2)
    assert [ticket.number for ticket in ledger.dispatch(1)] == [0, 2, 3, 4, 5]


def test_what_is_ready_beyond_a_batch_waits_for_the_next() -> None:
    ledger = Ledger(tasks=9, updates=2, groups_per_update=2, max_staleness=1, seed=0)
    tickets = ledger.dispatch(0)
    for ticket in (tickets[2], tickets[0], tickets[1]):
        ledger.admit(ticket, scored(ticket, version=0), version=0)
    assert [item.group for item in ledger.cut(0) or ()] == tickets[:2]
    assert ledger.cut(0) is None
    assert ledger.counts["ready"] == 1
    ledger.admit(tickets[3], scored(tickets[3], version=1), version=1)
    assert [item.group for item in ledger.cut(1) or ()] == tickets[2:]


def test_a_group_that_is_not_under_way_is_refused() -> None:
    ledger = Ledger(tasks=4, updates=2, groups_per_update=2, max_staleness=0, seed=0)
    with pytest.raises(ValueError, match="not under way"):
        ledger.admit(Ticket(0, 0, 0), scored(Ticket(0, 0, 0), 0), 0)
    first, _ = ledger.dispatch(0)
    assert not ledger.admit(first, scored(first, version=0), version=1)
    with pytest.raises(ValueError, match="not under way"):
        ledger.admit(first, scored(first, version=1), version=1)


def test_a_group_cannot_be_admitted_twice() -> None:
    ledger = Ledger(tasks=4, updates=2, groups_per_update=2, max_staleness=1, seed=0)
    first, *_ = ledger.dispatch(0)
    ledger.admit(first, scored(first, 0), 0)
    with pytest.raises(ValueError, match="not under way"):
        ledger.admit(first, scored(first, 0), 0)


def test_a_restored_ledger_owes_what_was_not_learned_from_in_the_order_of_the_plan() -> None:
    def fresh() -> Ledger:
        return Ledger(tasks=9, updates=4, groups_per_update=2, max_staleness=3, seed=0)

    ledger = fresh()
    plan = ledger.dispatch(0)
    for ticket in (plan[5], plan[1]):  # they may come in any order
        ledger.admit(ticket, scored(ticket, 0), 0)
    assert ledger.cut(0) is not None
    ledger.admit(plan[0], scored(plan[0], 0), 1)
    restored = fresh()
    restored.restore(json.loads(json.dumps(ledger.snapshot())))
    assert restored.dispatch(0) == [ticket for ticket in plan if ticket.number not in (1, 5)]
    assert restored.learned == 2


def test_a_snapshot_says_what_was_learned_from_and_dropped() -> None:
    ledger = Ledger(tasks=9, updates=4, groups_per_update=2, max_staleness=3, seed=0)
    assert ledger.snapshot() == {"learned_below": 0, "except": [], "dropped": {}, "replaced": {}}
    plan = ledger.dispatch(0)
    for number in (4, 1):
        ledger.admit(plan[number], scored(plan[number], version=0), version=0)
    ledger.admit(plan[2], scored(plan[2], version=0), version=4)
    ledger.cut(0)
    assert ledger.snapshot() == {
        "learned_below": 5,
        "except": [0, 2, 3],
        "dropped": {"stale": 1},
        "replaced": {},
    }


def test_going_back_forgets_what_came_after_and_keeps_the_count_of_what_was_dropped() -> None:
    ledger = Ledger(tasks=9, updates=2, groups_per_update=2, max_staleness=1, seed=0)
    first, second, third, _ = ledger.dispatch(0)
    ledger.admit(first, scored(first, version=0), version=2)
    saved = json.loads(json.dumps(ledger.snapshot()))
    ledger.admit(second, scored(second, version=0), version=2)
    ledger.admit(third, scored(third, version=2), version=2)
    ledger.restore(saved)
    assert ledger.counts == {"owed": 4, "under_way": 0, "ready": 0, "learned": 0, "dropped_stale": 1}
    with pytest.raises(ValueError, match="not under way"):
        ledger.admit(third, scored(third, version=2), version=2)
    assert ledger.dispatch(0)[0] == first


def test_the_second_group_of_a_task_in_a_wave_has_seeds_of_its_own_name() -> None:
    ledger = Ledger(tasks=1, updates=2, groups_per_update=3, max_staleness=1, seed=5)
    tickets = ledger.dispatch(0)
    assert [(ticket.wave, ticket.repeat) for ticket in tickets] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for ticket, name in zip(tickets, ("a", "a#2", "a#3") * 2, strict=True):
        assert ledger.seeds(ticket, "a", 4) == RolloutSeeds.for_group(5, ticket.wave, name, 4)


def test_one_task_makes_a_plan() -> None:
    assert [ticket.task for ticket in Ledger(1, 2, 2, max_staleness=1, seed=0).dispatch(0)] == [0, 0, 0, 0]


def test_every_epoch_has_an_order_of_its_own() -> None:
    tasks = [ticket.task for ticket in Ledger(8, 6, 8, max_staleness=6, seed=0).dispatch(0)]
    assert len({tuple(tasks[start : start + 8]) for start in range(0, 48, 8)}) == 6


def test_a_plan_needs_tasks() -> None:
    with pytest.raises(ValueError, match="no training tasks"):
        Ledger(0, 1, 1, 0, 0)


class Training(RuleBasedStateMachine):
    """Completions in any order, under any version that was current since dispatch, with updates in between."""

    @initialize(staleness=st.integers(0, 3), groups=st.integers(1, 4), updates=st.integers(1, 6))
    def start(self, staleness: int, groups: int, updates: int) -> None:
        self.ledger = Ledger(tasks=7, updates=updates, groups_per_update=groups, max_staleness=staleness, seed=3)
        self.staleness, self.groups, self.updates = staleness, groups, updates
        self.version = 0
        self.under_way: dict[Ticket, int] = {}
        self.learned: list[Ticket] = []
        self.checkpoint()

    @rule()
    def dispatch(self) -> None:
        for ticket in self.ledger.dispatch(self.version):
            assert ticket.wave <= self.version + self.staleness
            assert ticket not in self.under_way
            self.under_way[ticket] = self.version

    @rule()
    def checkpoint(self) -> None:
        self.saved = json.loads(json.dumps(self.ledger.snapshot())), self.version, list(self.learned)

    @rule()
    def start_again_from_the_checkpoint(self) -> None:
        """The learner or the driver is lost: what is under way is, too, and later updates never were."""
        snapshot, self.version, learned = self.saved
        self.ledger.restore(snapshot)
        self.learned, self.under_way = list(learned), {}

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def lose_a_worker(self, data: st.DataObject) -> None:
        """Its group is made again under the newest version, from the same ticket: for the ledger, it took longer."""
        ticket = data.draw(st.sampled_from(sorted(self.under_way)))
        self.under_way[ticket] = self.version

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.under_way)))
        version = data.draw(st.integers(self.under_way.pop(ticket), self.version))
        self.ledger.admit(ticket, scored(ticket, version), self.version)

    @precondition(lambda self: self.version < self.updates)
    @rule()
    def learn(self) -> None:
        batch = self.ledger.cut(self.version)
        if batch is None:
            return
        assert len(batch) == self.groups
        for item in batch:
            begun = item.receipt.policy.number
            assert self.version - begun <= self.staleness
            # A slow group is overtaken by later ones for so many batches, and then made again under a newer version.
            overtaking = [other for other in self.learned[begun * self.groups :] if other.number > item.group.number]
            assert len(overtaking) <= self.staleness * self.groups
        self.learned += [item.group for item in batch]
        self.version += 1

    @invariant()
    def nothing_is_lost_and_nothing_counted_twice(self) -> None:
        if not hasattr(self, "ledger"):
            return
        counts = self.ledger.counts
        assert counts["owed"] + counts["under_way"] + counts["ready"] + counts["learned"] == self.updates * self.groups
        assert len(set(self.learned)) == len(self.learned) == counts["learned"]
        assert counts["under_way"] == len(self.under_way)

    def teardown(self) -> None:
        """Whatever happened before, the rest of the run can be finished."""
        if not hasattr(self, "ledger"):
            return
        for _ in range(100):
            if self.version == self.updates:
                break
            self.dispatch()
            for ticket in sorted(self.under_way):
                self.under_way.pop(ticket)
                self.ledger.admit(ticket, scored(ticket, self.version), self.version)
            self.learn()
        assert self.version == self.updates


Training.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestTraining = Training.TestCase


@given(
    tasks=st.integers(1, 12),
    groups=st.integers(1, 5),
    refills=st.integers(0, 4),
    seed=st.integers(0, 99),
    unlearnable=st.sets(st.tuples(st.integers(0, 14), st.integers(0, 4))),
)
def test_filling_is_a_function_of_the_tickets_and_every_group_of_it_is_another(
    tasks: int, groups: int, refills: int, seed: int, unlearnable: set[tuple[int, int]]
) -> None:
    """Whichever places of a batch fail how often: the same groups come, in whatever order they are worked off."""

    def made(backwards: bool) -> list[Ticket]:
        ledger, all_made = Ledger(tasks, 3, groups, max_staleness=0, seed=seed, refills=refills), []
        for update in range(3):
            while (batch := ledger.cut(update)) is None:
                for ticket in sorted(ledger.dispatch(update), reverse=backwards):
                    bad = (ticket.number, ticket.attempt) in unlearnable
                    ledger.admit(ticket, scored(ticket, update), update, "too_few_valid" if bad else None)
                    all_made.append(ticket)
            assert [item.group.number for item in batch] == list(range(update * groups, (update + 1) * groups))
        return sorted(all_made)

    tickets = made(backwards=False)
    assert tickets == made(backwards=True)
    seeds = Ledger(tasks, 3, groups, 0, seed).seeds
    assert len({seeds(ticket, f"task-{ticket.task}", 3).reference for ticket in tickets}) == len(tickets)
    assert len(tickets) == 3 * groups + sum(ticket.attempt > 0 for ticket in tickets)
    assert max(ticket.attempt for ticket in tickets) <= refills


def test_a_batch_is_filled_from_tasks_that_are_not_in_it_while_there_are_any() -> None:
    ledger = Ledger(tasks=12, updates=1, groups_per_update=3, max_staleness=0, seed=4, refills=3)
    seen: list[int] = []
    while tickets := ledger.dispatch(0):
        seen += [ticket.task for ticket in tickets]
        for ticket in tickets:
            ledger.admit(ticket, scored(ticket, 0), 0, "tied_task_rewards")
    assert sorted(seen) == list(range(12))


def test_a_run_that_goes_back_fills_its_batch_again_with_the_same_groups() -> None:
    def spoil_first(ledger: Ledger) -> list[Ticket]:
        first, *others = ledger.dispatch(0)
        ledger.admit(first, scored(first, 0), 0, "tied_task_rewards")
        return [*others, *ledger.dispatch(0)]

    ledger = Ledger(tasks=9, updates=2, groups_per_update=3, max_staleness=0, seed=0, refills=1)
    saved = json.loads(json.dumps(ledger.snapshot()))
    before = spoil_first(ledger)
    assert ledger.counts["replaced_tied_task_rewards"] == 1
    ledger.restore(saved)
    assert "replaced_tied_task_rewards" not in ledger.counts
    assert spoil_first(ledger) == before


def test_a_checkpoint_of_before_batches_were_filled_is_restored() -> None:
    ledger = Ledger(tasks=9, updates=2, groups_per_update=3, max_staleness=0, seed=0)
    ledger.restore({"learned_below": 3, "except": [], "dropped": {}})
    assert [ticket.wave for ticket in ledger.dispatch(1)] == [1, 1, 1]
