"""Talking to a run from outside: a named actor that holds its status and takes orders for it.

The driver asks the actor for orders and tells it the status in one call that returns at once when there is an order and
after a moment when there is none. So the driver, which owns the pools, is the only one to touch them, and a question is
answered even while the driver is busy.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from deploy.cluster import beside_the_driver
from deploy.stopping import Stop
from rc_grpo.pool import WorkerPool

logger = logging.getLogger(__name__)
NAME = "control"
STOPPING = "stopping: the update under way is finished, then a checkpoint is written"
_PATIENCE_S = 1.0


@dataclass(frozen=True)
class Resize:
    """A pool is to have another size."""

    pool: str
    workers: int


@dataclass(frozen=True)
class Halt:
    """The run is to stop in good order."""


@dataclass(frozen=True)
class Order:
    """What was asked for, by the number under which it is answered."""

    number: int
    what: Resize | Halt


class ControlRoom:
    """What the outside sees of a run; `ControlActor` is it as a Ray actor, on one asyncio loop."""

    def __init__(self) -> None:
        self._status: dict[str, Any] = {}
        self._new: list[Order] = []
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._waiting = asyncio.Event()
        self._count = 0

    def __repr__(self) -> str:
        return NAME

    async def exchange(self, status: dict[str, Any], answers: Mapping[int, str]) -> list[Order]:
        """Take the driver's status and its answers to orders; return new orders, or none after a moment."""
        self._status = status
        for number, answer in answers.items():
            self._answers.pop(number).set_result(answer)
        try:
            await asyncio.wait_for(self._waiting.wait(), _PATIENCE_S)
        except TimeoutError:
            return []
        orders, self._new = self._new, []
        self._waiting.clear()
        return orders

    async def status(self) -> dict[str, Any]:
        """Return what the driver last said; empty before it said anything."""
        return self._status

    async def scale(self, pool: str, workers: int) -> str:
        """Have a pool resized; return the driver's answer."""
        return await self._answer_to(Resize(pool, workers))

    async def stop(self) -> str:
        """Have the run stopped as one SIGTERM would; return the driver's answer. Asked again, it is still one stop."""
        return await self._answer_to(Halt())

    async def _answer_to(self, what: Resize | Halt) -> str:
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        self._new.append(Order(self._count, what))
        self._waiting.set()
        return await answer


ControlActor = ray.remote(ControlRoom)


def start_control(namespace: str) -> Any:
    """Start the control actor of a run."""
    options = beside_the_driver()
    return ControlActor.options(name=NAME, namespace=namespace, max_concurrency=100, **options).remote()


@asynccontextmanager
async def answering(
    namespace: str, status: Callable[[], dict[str, Any]], pools: Sequence[WorkerPool[Any]], stop: Stop
) -> AsyncIterator[None]:
    """Answer questions and carry out orders for as long as the block runs; see `serve`."""
    control = start_control(namespace)
    serving = asyncio.create_task(serve(control, status, pools, stop))
    try:
        yield
    finally:
        serving.cancel()
        ray.kill(control)


async def serve(
    control: Any, status: Callable[[], dict[str, Any]], pools: Sequence[WorkerPool[Any]], stop: Stop
) -> None:
    """Tell the control actor the status and carry out what it was asked, until cancelled.

    Args:
        control: the actor.
        status: of the run, as plain values.
        pools: of the run, which are resized.
        stop: of the run.
    """
    answers: dict[int, str] = {}
    while True:
        try:
            orders = await control.exchange.remote(status(), answers)
        except RayActorError as error:
            logger.warning("the run goes on, but status, scale and watch do not reach it any more: %s", error)
            return
        answers = {order.number: _obey(order.what, pools, stop) for order in orders}


def _obey(order: Resize | Halt, pools: Sequence[WorkerPool[Any]], stop: Stop) -> str:
    if isinstance(order, Halt):
        return STOPPING if stop.ask() else "it is stopping already"
    named = {pool.role: pool for pool in pools}
    rewards = [pool for pool in pools if pool.role != "rollout"]
    if len(rewards) == 1:
        named["reward"] = rewards[0]
    if order.pool not in named:
        return f"there is no pool {order.pool!r}; this run has {', '.join(pool.role for pool in pools)}"
    pool = named[order.pool]
    before = pool.size
    try:
        pool.resize(order.workers)
    except ValueError as error:
        return str(error)
    return f"{pool.role}: {before} -> {order.workers} workers"
