import asyncio
import time

import pytest

from benchmarks import virtual_time
from benchmarks.virtual_time import DeadlockError


def test_an_hour_passes_at_once_and_in_order() -> None:
    async def program() -> tuple[list[str], float]:
        order: list[str] = []

        async def after(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            order.append(name)

        await asyncio.gather(after(3600.0, "hour"), after(60.0, "minute"), after(0.0, "now"))
        return order, asyncio.get_running_loop().time()

    started = time.monotonic()
    order, passed = virtual_time.run(program())
    assert order == ["now", "minute", "hour"]
    assert passed == pytest.approx(3600.0)
    assert time.monotonic() - started < 10.0


def test_deadlines_are_kept_on_the_virtual_clock() -> None:
    async def program() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(1000.0), 600.0)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(program()) == pytest.approx(600.0)


def test_the_clock_stands_still_while_there_is_work() -> None:
    async def program() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(program()) == 0.0


def test_what_can_never_end_is_told_instead_of_waited_for() -> None:
    async def program() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError, match="no timer is set"):
        virtual_time.run(program())
