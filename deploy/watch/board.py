"""What is on the page now, in parts; whoever looks is told what changed since they last were.

The newest text of each part is all that is kept: a viewer who was away, or whose network is slow, gets what changed and
not what was in between. So neither a long run nor a viewer who does not read fills the memory.
"""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Board:
    """The parts of a page. One asyncio loop owns it."""

    def __init__(self) -> None:
        # Of another server, or of this one before it was started again, a mark says nothing.
        self._epoch = secrets.token_hex(4)
        self._count = 0
        self._parts: dict[str, tuple[int, str]] = {}
        self._news = asyncio.Event()
        self._watched = asyncio.Event()
        self._viewers = 0
        self.closed = False

    @property
    def mark(self) -> str:
        """How far it is, for `since`."""
        return f"{self._epoch}-{self._count}"

    @property
    def viewers(self) -> int:
        """How many look."""
        return self._viewers

    def part(self, name: str) -> str:
        """Return the text of a part; empty before there is one."""
        return self._parts.get(name, (0, ""))[1]

    def put(self, parts: Mapping[str, str]) -> None:
        """Put texts in the place of those there; one that is the same is no news."""
        news = {name: text for name, text in parts.items() if self._parts.get(name, (0, None))[1] != text}
        if not news:
            return
        self._count += 1
        self._parts |= {name: (self._count, text) for name, text in news.items()}
        self._ring()

    def since(self, mark: str) -> dict[str, str]:
        """Return the parts that changed after a mark; all of them after one that is not of this board."""
        epoch, _, count = mark.rpartition("-")
        known = epoch == self._epoch and count.isascii() and count.isdigit() and len(count) < 20
        after = int(count) if known else 0
        return {name: text for name, (number, text) in self._parts.items() if number > after}

    async def news(self, mark: str, patience_s: float) -> dict[str, str]:
        """Return what changed after a mark as soon as something has; nothing when that takes too long, or it closed."""
        if not self.closed and not self.since(mark):
            try:
                await asyncio.wait_for(self._news.wait(), patience_s)
            except TimeoutError:
                return {}
        return {} if self.closed else self.since(mark)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a viewer for as long as the block runs."""
        self._viewers += 1
        self._watched.set()
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._watched.clear()

    async def somebody(self) -> None:
        """Wait until somebody looks."""
        await self._watched.wait()

    def close(self) -> None:
        """Let all who wait for news go."""
        self.closed = True
        self._ring()

    def _ring(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
