"""Workers of a host take a version in turn, and one that hangs holds the others up for a moment only."""

import asyncio

import pytest

from rollout_workers import turns
from rollout_workers.turns import Turns


@pytest.mark.parametrize(("cores", "threads", "at_a_time"), [(2, 1, 1), (8, 1, 4), (8, 2, 2), (4, 8, 1), (128, 8, 8)])
def test_so_many_take_their_turn_at_a_time_as_half_of_the_cores_hold(cores: int, threads: int, at_a_time: int) -> None:
    async def all_of_them() -> int:
        places, inside, most = Turns(), 0, 0
        places.add("a", cores, threads)

        async def one() -> None:
            nonlocal inside, most
            async with places.taken("a"):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(one() for _ in range(10)))
        return most

    assert asyncio.run(all_of_them()) == at_a_time


def test_another_host_is_not_waited_for() -> None:
    async def both() -> None:
        places = Turns()
        for host in "ab":
            places.add(host, 2, 1)
        async with places.taken("a"), asyncio.timeout(1), places.taken("b"):
            pass

    asyncio.run(both())


def test_one_that_hangs_or_fails_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken_by_others() -> list[str]:
        places, order = Turns(), []
        places.add("a", 2, 1)

        async def hang() -> None:
            async with places.taken("a"):
                await asyncio.Event().wait()

        hanging = asyncio.create_task(hang())
        await asyncio.sleep(0)
        monkeypatch.setattr(turns, "PATIENCE_S", 0.01)
        async with places.taken("a"):
            order.append("beside it")
        # Nothing was held, so nothing is given back: the place is still the other's.
        monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), places.taken("a"):
                order.append("too early")
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        async with asyncio.timeout(1), places.taken("a"):
            order.append("after it")
        return order

    assert asyncio.run(taken_by_others()) == ["beside it", "after it"]
