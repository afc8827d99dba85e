import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from rc_grpo import pool as pools
from rc_grpo import seats
from rc_grpo.config import PoolConfig
from rc_grpo.pool import PoolError, WorkerPool
from rc_grpo.seats import Member
from rc_grpo.waiting import DeadlineExceededError


class LostError(Exception):
    pass


class UnableError(Exception):
    pass


class Fake:
    def __init__(self, name: str) -> None:
        self.name = name
        self.stopped = False


def make_pool(
    workers: int = 2,
    start: Callable[[str], Awaitable[Fake]] | None = None,
    recover: Callable[[Fake], Awaitable[object]] | None = None,
    drain: Callable[[Fake], Awaitable[object]] | None = None,
    alive: Callable[[Fake], Awaitable[object]] | None = None,
    calls_at_a_time: int = 1,
    **settings: float,
) -> WorkerPool[Fake]:
    async def quick(name: str) -> Fake:
        return Fake(name)

    def stop(worker: Fake) -> None:
        worker.stopped = True

    config = PoolConfig(workers=workers, **settings)  # type: ignore[arg-type]
    return WorkerPool(
        "fake",
        config,
        start or quick,
        stop,
        (LostError,),
        unable=(UnableError,),
        recover=recover,
        drain=drain,
        alive=alive,
        calls_at_a_time=calls_at_a_time,
    )


async def name_of(member: Member[Fake]) -> str:
    await asyncio.sleep(0.01)
    return member.handle.name


def test_calls_are_spread_over_workers_one_at_a_time_each() -> None:
    async def scenario() -> None:
        pool, busy = make_pool(workers=3), set()

        async def call(member: Member[Fake]) -> str:
            assert member.name not in busy
            busy.add(member.name)
            await asyncio.sleep(0.01)
            busy.remove(member.name)
            return member.name

        await pool.open()
        names = await asyncio.gather(*(pool.run("a call", call) for _ in range(9)))
        assert {name: names.count(name) for name in names} == {"fake-0": 3, "fake-1": 3, "fake-2": 3}

    asyncio.run(scenario())


def test_a_lost_worker_is_stopped_replaced_and_its_call_made_elsewhere() -> None:
    async def scenario() -> None:
        pool = make_pool(workers=2)
        await pool.open()
        victims = [member.handle for member in pool.members if member.name == "fake-0"]

        async def call(member: Member[Fake]) -> str:
            if member.name == "fake-0":
                raise LostError("killed")
            return await name_of(member)

        results = await asyncio.gather(*(pool.run("a call", call) for _ in range(4)))
        await asyncio.sleep(0.05)
        assert "fake-0" not in results
        assert [victim.stopped for victim in victims] == [True]
        assert sorted(member.name for member in pool.members) == ["fake-1", "fake-2"]
        assert pool.statistics.lost == 1

    asyncio.run(scenario())


def test_a_silent_worker_is_given_up_at_its_deadline() -> None:
    async def scenario() -> None:
        pool = make_pool(workers=1, call_deadline_s=0.05)
        await pool.open()

        async def call(member: Member[Fake]) -> str:
            if member.name == "fake-0":
                await asyncio.sleep(60)
            return member.name

        assert await pool.run("the scoring of task-7", call) == "fake-1"
        assert "fake-0 did not answer the scoring of task-7 within 0.05 s" in pool.statistics.reasons[0]

    asyncio.run(scenario())


def test_a_call_that_loses_every_worker_ends_with_what_was_tried() -> None:
    async def scenario() -> None:
        pool, lost = make_pool(workers=1, attempts=3), itertools.count()

        async def call(member: Member[Fake]) -> None:
            next(lost)
            raise LostError("again")

        await pool.open()
        with pytest.raises(PoolError, match="given to 3 fake workers"):
            await pool.run("a cursed call", call)
        assert next(lost) == 3

    asyncio.run(scenario())


def test_an_error_of_the_call_itself_is_raised_and_the_worker_kept() -> None:
    async def scenario() -> None:
        pool = make_pool(workers=1)
        await pool.open()

        async def call(member: Member[Fake]) -> None:
            raise ValueError("bad task")

        with pytest.raises(ValueError, match="bad task"):
            await pool.run("a call", call)
        assert await pool.run("a call", name_of) == "fake-0"
        assert pool.statistics.lost == 0

    asyncio.run(scenario())


def test_a_worker_that_does_not_start_in_time_is_named() -> None:
    async def never(name: str) -> Fake:
        await asyncio.sleep(60)
        return Fake(name)

    with pytest.raises(DeadlineExceededError, match=r"fake-0 was not up within start_deadline_s = 0\.05 s"):
        asyncio.run(make_pool(workers=1, start=never, start_deadline_s=0.05).open())


def test_a_worker_that_ends_while_it_starts_is_named_with_what_ended_it() -> None:
    async def start(name: str) -> Fake:
        raise LostError(
            "The actor died because of an error\n  File 'worker.py', line 1\nModelNotFoundError: no such model"
        )

    async def scenario() -> None:
        with pytest.raises(PoolError, match=r"^fake-0 ended while it started: ModelNotFoundError: no such model$"):
            await make_pool(workers=1, start=start).open()

    asyncio.run(scenario())


def test_a_replacement_that_cannot_start_ends_the_waiting() -> None:
    async def once(name: str) -> Fake:
        if name != "fake-0":
            raise RuntimeError("no room")
        return Fake(name)

    async def scenario() -> None:
        pool = make_pool(workers=1, start=once)
        await pool.open()

        async def call(member: Member[Fake]) -> None:
            raise LostError("killed")

        with pytest.raises(PoolError, match="cannot go on: no room"):
            await asyncio.wait_for(pool.run("a call", call), 10)

    asyncio.run(scenario())


def test_a_worker_that_dies_while_it_has_nothing_to_do_is_replaced_before_there_is_a_call_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "_LOOK_EVERY_S", 0.01)

    async def scenario() -> None:
        dead, asked, going_on = set[str](), Counter[str](), asyncio.Event()

        async def alive(worker: Fake) -> None:
            asked[worker.name] += 1
            if worker.name in dead:
                raise LostError("it died")

        pool = make_pool(alive=alive)
        await pool.open()
        first, second = (member.handle for member in pool.members)
        busy = asyncio.create_task(pool.run("a long call", lambda _: going_on.wait()))
        await asyncio.sleep(0.05)
        # Of the busy one its call tells.
        assert asked[first.name] <= 1 < asked[second.name]
        dead.add(second.name)
        await asyncio.sleep(0.05)
        assert second.stopped
        assert [member.name for member in pool.members] == ["fake-0", "fake-2"]
        assert "fake-1 was lost while idle: it died" in pool.statistics.reasons
        going_on.set()
        await busy
        pool.close()
        await asyncio.sleep(0)
        count = asked.total()
        await asyncio.sleep(0.05)
        assert asked.total() == count

    asyncio.run(scenario())


def test_idle_workers_are_reached_and_busy_ones_left_alone() -> None:
    async def scenario() -> None:
        pool, reached = make_pool(workers=2), []
        await pool.open()
        release = asyncio.Event()

        async def busy(member: Member[Fake]) -> None:
            await release.wait()

        async def note(member: Member[Fake]) -> None:
            reached.append(member.name)

        working = asyncio.create_task(pool.run("work", busy))
        await asyncio.sleep(0.01)
        await pool.on_idle("a note", note)
        assert reached == ["fake-1"]
        release.set()
        await working
        await pool.on_idle("a note", note)
        assert sorted(reached) == ["fake-0", "fake-1", "fake-1"]

    asyncio.run(scenario())


def test_a_worker_takes_as_many_calls_at_a_time_as_it_may_and_the_least_busy_is_chosen() -> None:
    async def scenario() -> None:
        pool, at_once, most = make_pool(workers=2, calls_at_a_time=3), Counter[str](), Counter[str]()

        async def call(member: Member[Fake]) -> None:
            at_once[member.name] += 1
            most[member.name] = max(most[member.name], at_once[member.name])
            await asyncio.sleep(0.01)
            at_once[member.name] -= 1

        await pool.open()
        await asyncio.gather(*(pool.run("a call", call) for _ in range(4)))
        assert most == {"fake-0": 2, "fake-1": 2}
        await asyncio.gather(*(pool.run("a call", call) for _ in range(20)))
        assert most == {"fake-0": 3, "fake-1": 3}
        assert pool.summary["queued"] == 0

    asyncio.run(scenario())


def test_one_slow_worker_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        pool, done = make_pool(workers=2), []
        await pool.open()

        async def call(member: Member[Fake]) -> None:
            await asyncio.sleep(0.5 if member.name == "fake-0" else 0.001)
            done.append(member.name)

        await asyncio.gather(*(pool.run("a call", call) for _ in range(30)))
        assert done.count("fake-0") == 1

    asyncio.run(scenario())


def test_a_worker_that_is_unable_rests_until_it_has_recovered_and_is_not_replaced() -> None:
    async def scenario() -> None:
        able, asked = asyncio.Event(), []

        async def recover(worker: Fake) -> None:
            asked.append(worker.name)
            await able.wait()

        pool = make_pool(workers=2, recover=recover, calls_at_a_time=2)
        await pool.open()

        async def call(member: Member[Fake]) -> str:
            if member.name == "fake-0" and not able.is_set():
                raise UnableError("its server is restarting")
            return await name_of(member)

        assert set(await asyncio.gather(*(pool.run("a call", call) for _ in range(8)))) == {"fake-1"}
        assert asked == ["fake-0"]
        assert pool.summary["resting"] == 1
        able.set()
        await asyncio.sleep(0.01)
        assert set(await asyncio.gather(*(pool.run("a call", call) for _ in range(8)))) == {"fake-0", "fake-1"}
        assert (pool.statistics.lost, pool.statistics.rested) == (0, 1)

    asyncio.run(scenario())


def test_a_worker_that_says_it_is_well_and_fails_again_takes_no_calls_attempts_while_others_are_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seats, "_PAUSE_S", 0.2)

    async def scenario() -> None:
        async def recover(worker: Fake) -> None:
            """At once, as a server that answers and serves nothing."""

        pool = make_pool(workers=2, recover=recover)
        await pool.open()
        given: list[str] = []

        async def call(member: Member[Fake]) -> str:
            given.append(member.name)
            if member.name == "fake-0":
                raise UnableError("its engine is dead")
            await asyncio.sleep(0.05)
            return member.name

        assert set(await asyncio.gather(*(pool.run("a call", call) for _ in range(4)))) == {"fake-1"}
        assert 1 <= given.count("fake-0") <= 3

    asyncio.run(scenario())


def test_a_worker_that_does_not_recover_is_replaced() -> None:
    async def never(worker: Fake) -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        pool = make_pool(workers=1, recover=never, start_deadline_s=0.05)
        await pool.open()

        async def call(member: Member[Fake]) -> str:
            if member.name == "fake-0":
                raise UnableError("its server is gone")
            return member.name

        assert await pool.run("a call", call) == "fake-1"
        assert "fake-0 did not recover within 0.05 s" in pool.statistics.reasons[-1]

    asyncio.run(scenario())


def test_a_caller_who_gives_up_leaves_its_place_to_the_next() -> None:
    async def scenario() -> None:
        pool = make_pool(workers=1)
        await pool.open()
        release = asyncio.Event()

        async def hold(member: Member[Fake]) -> None:
            await release.wait()

        first, second = (asyncio.create_task(pool.run("a call", hold)) for _ in range(2))
        third = asyncio.create_task(pool.run("a call", name_of))
        await asyncio.sleep(0.01)
        second.cancel()
        release.set()
        assert await asyncio.wait_for(third, 1) == "fake-0"
        await first

    asyncio.run(scenario())


def test_a_pool_grows_while_calls_wait_and_new_workers_take_them() -> None:
    async def scenario() -> None:
        pool, release = make_pool(workers=1), asyncio.Event()

        async def hold(member: Member[Fake]) -> str:
            await release.wait()
            return member.name

        await pool.open()
        calls = [asyncio.create_task(pool.run("a call", hold)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert pool.summary["queued"] == 2
        pool.resize(3)
        await asyncio.sleep(0.01)
        assert pool.summary["queued"] == 0
        release.set()
        assert sorted(await asyncio.gather(*calls)) == ["fake-0", "fake-1", "fake-2"]

    asyncio.run(scenario())


def test_a_worker_that_leaves_finishes_what_it_has_and_is_drained() -> None:
    async def scenario() -> None:
        drained: list[str] = []

        async def drain(worker: Fake) -> None:
            drained.append(worker.name)

        pool, release = make_pool(workers=3, drain=drain), asyncio.Event()

        async def hold(member: Member[Fake]) -> str:
            await release.wait()
            return member.name

        await pool.open()
        handles = {member.name: member.handle for member in pool.members}
        calls = [asyncio.create_task(pool.run("a call", hold)) for _ in range(2)]
        await asyncio.sleep(0.01)
        pool.resize(1)
        await asyncio.sleep(0.01)
        assert pool.summary["workers"] == 1
        assert pool.summary["leaving"] == 1
        assert drained == ["fake-2"]  # the idle one went at once
        release.set()
        assert sorted(await asyncio.gather(*calls)) == ["fake-0", "fake-1"]
        await asyncio.sleep(0.01)
        assert len(drained) == 2
        assert sorted(name for name, handle in handles.items() if handle.stopped) == sorted(drained)
        assert (pool.statistics.left, pool.statistics.lost) == (2, 0)

    asyncio.run(scenario())


def test_growing_again_keeps_those_who_were_about_to_leave() -> None:
    async def scenario() -> None:
        pool, release = make_pool(workers=2), asyncio.Event()

        async def hold(member: Member[Fake]) -> None:
            await release.wait()

        await pool.open()
        calls = [asyncio.create_task(pool.run("a call", hold)) for _ in range(2)]
        await asyncio.sleep(0.01)
        pool.resize(1)
        pool.resize(2)
        release.set()
        await asyncio.gather(*calls)
        assert sorted(member.name for member in pool.members) == ["fake-0", "fake-1"]
        assert pool.statistics.started == 2

    asyncio.run(scenario())


def test_what_cannot_start_for_now_is_tried_again_while_others_work() -> None:
    tries = itertools.count()

    async def start(name: str) -> Fake:
        if name != "fake-0" and next(tries) < 2:
            raise RuntimeError("no room in the cluster")
        return Fake(name)

    async def scenario() -> None:
        pool = make_pool(workers=1, start=start, start_retry_s=0.02)
        await pool.open()
        pool.resize(2)
        assert await pool.run("a call", name_of) == "fake-0"
        await asyncio.sleep(0.1)
        assert pool.summary["workers"] == 2
        assert pool.summary["failed_starts"] == 2

    asyncio.run(scenario())


def test_shrinking_gives_up_starts_that_are_under_way_first() -> None:
    async def start(name: str) -> Fake:
        if name != "fake-0":
            await asyncio.sleep(60)
        return Fake(name)

    async def scenario() -> None:
        pool = make_pool(workers=1, start=start)
        await pool.open()
        pool.resize(3)
        await asyncio.sleep(0.01)
        assert pool.summary["starting"] == 2
        pool.resize(1)
        await asyncio.sleep(0.01)
        assert (pool.summary["starting"], pool.summary["workers"]) == (0, 1)

    asyncio.run(scenario())


def test_a_pool_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at least one worker, not 0"):
        make_pool().resize(0)


def test_what_a_pool_waits_for_can_be_asked() -> None:
    async def scenario() -> None:
        pool, release = make_pool(workers=1, call_deadline_s=9), asyncio.Event()
        await pool.open()

        async def hold(member: Member[Fake]) -> None:
            await release.wait()

        calls = [asyncio.create_task(pool.run(f"call {number}", hold)) for number in (1, 2)]
        await asyncio.sleep(0.01)
        waits = {(wait.who, wait.what, wait.deadline_s) for wait in pool.waits.now}
        assert waits == {("the fake pool", "fake-0 to answer call 1", 9), ("call 2", "a free fake worker", None)}
        release.set()
        await asyncio.gather(*calls)
        assert pool.waits.now == ()

    asyncio.run(scenario())
