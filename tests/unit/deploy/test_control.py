"""What is ordered from outside is done by the driver, and its answer reaches whoever ordered."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deploy.stopping import Stop
from deploy.watching import control
from deploy.watching.control import STOPPING, ControlRoom, serve
from rc_grpo.pool import WorkerPool


class Pool:
    def __init__(self, role: str, size: int) -> None:
        self.role, self.size = role, size

    def resize(self, size: int) -> None:
        if size > 8:
            raise ValueError(f"{self.role} has no room for {size}")
        self.size = size


def order(
    *roles: str, by: Callable[[ControlRoom], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Pool], Stop]:
    """Let somebody order while a driver with these pools serves; return what became of them."""
    monkeypatch.setattr(control, "_PATIENCE_S", 0.05)
    pools = [Pool(role, 2) for role in roles]

    async def scenario() -> Stop:
        room, stop = ControlRoom(), Stop()
        reached = SimpleNamespace(exchange=SimpleNamespace(remote=room.exchange))
        serving = asyncio.create_task(serve(reached, dict, cast(list[WorkerPool[Any]], pools), stop))
        try:
            await asyncio.wait_for(by(room), 5)
        finally:
            serving.cancel()
        return stop

    return pools, asyncio.run(scenario())


def test_a_stop_is_asked_for_once_however_often_it_is_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def by(room: ControlRoom) -> None:
        assert await room.stop() == STOPPING
        assert await room.stop() == "it is stopping already"

    pools, stop = order("rollout", by=by, monkeypatch=monkeypatch)
    assert stop.asked.is_set()
    assert [pool.size for pool in pools] == [2]


def test_sizes_are_given_to_the_pool_that_is_named_and_refusals_are_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def by(room: ControlRoom) -> None:
        assert await room.scale("rollout", 3) == "rollout: 2 -> 3 workers"
        assert await room.scale("reward", 4) == "reward-a: 2 -> 4 workers"
        assert await room.scale("rollout", 9) == "rollout has no room for 9"
        assert "there is no pool 'learner'; this run has rollout, reward-a" in await room.scale("learner", 1)

    pools, stop = order("rollout", "reward-a", by=by, monkeypatch=monkeypatch)
    assert [pool.size for pool in pools] == [3, 4]
    assert not stop.asked.is_set()


def test_orders_given_at_once_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def by(room: ControlRoom) -> None:
        answers = await asyncio.gather(room.scale("rollout", 3), room.stop(), room.scale("reward", 1))
        assert answers == ["rollout: 2 -> 3 workers", STOPPING, "reward-a: 2 -> 1 workers"]

    order("rollout", "reward-a", by=by, monkeypatch=monkeypatch)
