"""Keeps a run's page as it is now, for as long as somebody looks at it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from deploy.watch.board import Board
from deploy.watch.line import Driver, NotReachableError
from deploy.watch.view import View

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

LOOK_EVERY_S = 2.0
_NOT_KEPT = '<p class="box alarm">This page is not kept any more; its server has said why.</p>'
_DRAWING_SHARE = 0.1
"""Of one processor: the machine may be the run's own, and there may be an update a second to draw."""


class Keeper:
    """Reads, asks, draws, and puts what comes of it on a board. A page that nobody looks at costs nothing.

    Args:
        view: of the run.
        driver: of the run.
        board: of the page.
    """

    def __init__(self, view: View, driver: Driver, board: Board) -> None:
        self._view, self._driver, self._board = view, driver, board
        # One: matplotlib's settings are the process's.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drawing")
        self._draw_at = 0.0
        self._status: dict[str, Any] | None = None
        self._silence = ""

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Keep the page for as long as the block runs."""
        # Apart: a driver may take a minute to answer, and the folder can be read meanwhile.
        tasks = [asyncio.create_task(each()) for each in (self._ask, self._look)]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._driver.close()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def ask(self) -> None:
        """Ask the driver once."""
        try:
            self._status, self._silence = await self._driver.ask("status") or None, ""
        except NotReachableError as error:
            self._status, self._silence = None, str(error)

    async def look(self) -> None:
        """Look once into the folder; draw, where there is something new and it is time."""
        self._board.put(await self._apart(partial(self._view.live, self._status, self._silence)))
        if time.monotonic() < self._draw_at or await self._apart(lambda: self._view.drawn_already):
            return
        began = time.monotonic()
        self._board.put(await self._apart(self._view.drawn))
        ended = time.monotonic()
        self._draw_at = ended + (ended - began) * (1 / _DRAWING_SHARE - 1)

    async def _ask(self) -> None:
        while True:
            if not self._board.viewers:
                await self._driver.close()
                self._status, self._silence = None, ""
            await self._board.somebody()
            await self.ask()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        while True:
            await self._board.somebody()
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _apart(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the page is not kept any more", exc_info=error)
            self._board.put({"remarks": _NOT_KEPT})
