"""Whose turn it is: of the workers of one host, so many take a version at the same time.

To hash a version and to merge it is work for the processor. All at once on too few cores, all are ready late; in turn,
the first is ready soon, and makes the next group while the others take theirs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE_S = 5.0
"""A worker that hangs in its turn keeps the others no longer than that."""


class Turns:
    """Places by host."""

    def __init__(self) -> None:
        self._places: dict[str, asyncio.Semaphore] = {}

    def add(self, host: str, cores: int, threads: int) -> None:
        """Let as many workers of so many threads at a time as half of a host's cores hold: on the rest, others work."""
        self._places.setdefault(host, asyncio.Semaphore(max(1, cores // (2 * threads))))

    @asynccontextmanager
    async def taken(self, host: str) -> AsyncIterator[None]:
        """Wait for a place, at most `PATIENCE_S`, and hold it inside the context."""
        places = self._places[host]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await places.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            places.release()
