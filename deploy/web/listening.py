"""A page served by this process, from its first line on the screen to the signal that ends it."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable

from aiohttp import web

from deploy.web.access import TOKEN

STOP_DEADLINE_S = 5.0


async def serve_until_signal(
    app: web.Application, host: str, port: int, token: str | None, say: Callable[[str], None]
) -> None:
    """Serve a page until SIGINT or SIGTERM.

    Args:
        app: what is served.
        host: address to listen at.
        port: 0 takes any that is free.
        token: goes into the link.
        say: takes the link, once the page is there.

    Raises:
        ValueError: the address is taken, or is none of this machine.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_DEADLINE_S)
    await runner.setup()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ValueError(f"cannot listen at {host}:{port} ({reason}); name another --host or --port") from error
        bound = runner.addresses[0][1]
        say(f"http://{_reachable(host)}:{bound}/" + (f"?{TOKEN}={token}" if token else ""))
        await ended.wait()
    finally:
        await runner.cleanup()


def _reachable(host: str) -> str:
    """Return what stands for an address in a link; "all addresses" is none that a browser elsewhere could open."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
