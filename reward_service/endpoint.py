"""Where a judge is served: what a client needs to know of a server, whoever runs it."""

import asyncio
import time
from typing import Protocol

from rc_grpo.config import ServerConfig
from rc_grpo.waiting import DeadlineExceededError
from reward_service.transport import NoReplyError, Reply, Transport

_POLL_SECONDS = 0.5


class Endpoint(Protocol):
    """A server of the OpenAI chat protocol."""

    api_key: str
    restarts: int

    @property
    def url(self) -> str:
        """Address of the API, ``http://host:port/v1``; it may change when the server is restarted."""
        ...

    async def open(self) -> None:
        """Return when it serves for the first time."""
        ...

    async def ready(self) -> None:
        """Return when it serves; raise when it will not any more."""
        ...

    async def metrics(self) -> str:
        """Return its Prometheus metrics as text; empty where there are none."""
        ...

    async def close(self) -> None:
        """Let go of it; end it if it is ours."""
        ...


class Probe:
    """Asks a server how it is, beside the work it does.

    Args:
        deadline: seconds to wait for an answer.
    """

    def __init__(self, deadline: float) -> None:
        self._transport = Transport(deadline)

    async def health(self, url: str) -> Reply:
        """Return what the server of an API answers at ``/health``.

        Raises:
            NoReplyError, UnreachableError: nothing.
        """
        return await self._get(url, "health")

    async def answers(self, url: str) -> bool:
        """Whether ``/health`` says that all is well."""
        try:
            return (await self.health(url)).is_success
        except NoReplyError:
            return False

    async def metrics(self, url: str) -> str:
        """Return ``/metrics``, or nothing."""
        try:
            reply = await self._get(url, "metrics")
        except NoReplyError:
            return ""
        return reply.text if reply.is_success and reply.whole else ""

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def _get(self, url: str, path: str) -> Reply:
        return await self._transport.send("GET", f"{url.removesuffix('/v1')}/{path}")


class AttachedServer:
    """A server that somebody else runs: it can be waited for, not mended.

    Args:
        url: of its API.
        api_key: for it.
        config: how patiently it is probed.
    """

    restarts = 0

    def __init__(self, url: str, api_key: str, config: ServerConfig) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key
        self._deadline = config.start_deadline_s
        self._probe = Probe(config.probe_deadline_s)

    async def open(self) -> None:
        """Wait until it answers."""
        await self.ready()

    async def ready(self) -> None:
        """Return when it answers its health probe.

        Raises:
            DeadlineExceededError: it did not within ``start_deadline_s``.
        """
        deadline = time.monotonic() + self._deadline
        while not await self._probe.answers(self.url):
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"the server at {self.url} did not answer its health probe within server.start_deadline_s = "
                    f"{self._deadline:g}; does it run, and can it be reached from this node?"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def metrics(self) -> str:
        """Return its Prometheus metrics as text; empty where it has none."""
        return await self._probe.metrics(self.url)

    async def close(self) -> None:
        """Close the connections."""
        await self._probe.close()
