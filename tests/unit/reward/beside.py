"""The chat server in a thread of its own, for what is no coroutine."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.unit.reward.chat_server import ChatServer, Reply, serving


@contextmanager
def served_beside(reply: Reply, port: int = 0) -> Iterator[ChatServer]:
    """Serve while the block runs, which may run event loops itself."""
    started, stop = threading.Event(), asyncio.Event()
    servers: list[ChatServer] = []
    loop = asyncio.new_event_loop()

    async def life() -> None:
        async with serving(reply, port) as server:
            servers.append(server)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(life(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield servers[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
