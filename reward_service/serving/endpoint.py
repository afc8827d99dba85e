"""Where a judge is served: what a client needs to know of a server, whoever runs it."""

import asyncio
import contextlib
import logging
import time
from contextlib import AbstractContextManager
from typing import Protocol

from rc_grpo.config import ServerConfig
from rc_grpo.waiting import DeadlineExceededError
from reward_service.asking.transport import NoReplyError, Reply, Transport, UnreachableError
from reward_service.judge import JudgeSetupError
from reward_service.serving.shown import Show, in_requests

logger = logging.getLogger(__name__)
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

    def shown(self) -> AbstractContextManager[Show]:
        """Return a context inside which images can be shown to it."""
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
        self._grace = min(config.reach_deadline_s, config.start_deadline_s)
        self._probe = Probe(config.probe_deadline_s)

    async def open(self) -> None:
        """Wait until it serves: for one that loads its model as `ready`, for one that is not there as `reach`.

        Raises:
            JudgeSetupError, DeadlineExceededError: as these.
        """
        with contextlib.suppress(NoReplyError):
            await self.reach()
        await self.ready()

    async def ready(self) -> None:
        """Return when it serves; it may be away as long as it takes somebody to start it again.

        A server without a health probe (404) serves: what else is wrong, requests will say.

        Raises:
            DeadlineExceededError: it did not within ``start_deadline_s``.
        """
        deadline = time.monotonic() + self._deadline
        heard = None
        while (missing := await self._missing()) is not None:
            if time.monotonic() > deadline:
                raise DeadlineExceededError(
                    f"the server at {self.url} did not answer its health probe within server.start_deadline_s = "
                    f"{self._deadline:g} (last: {missing}); does it run, and can it be reached from this node?"
                )
            if missing != heard:
                logger.warning("waiting for the judge's server at %s: %s", self.url, missing)
                heard = missing
            await asyncio.sleep(_POLL_SECONDS)

    async def reach(self) -> Reply:
        """Return what it answers to its health probe, as soon as there is somebody to ask.

        Raises:
            JudgeSetupError: there is nobody within ``reach_deadline_s``.
            NoReplyError: there is, and no answer comes.
        """
        deadline = time.monotonic() + self._grace
        while True:
            try:
                return await self._probe.health(self.url)
            except UnreachableError as error:
                if time.monotonic() > deadline:
                    raise JudgeSetupError(
                        f"the judge's server at {self.url} cannot be reached from this node: {error}, for "
                        f"{self._grace:g} s (server.reach_deadline_s). Start it first, or correct the judge's urls"
                    ) from error
            await asyncio.sleep(_POLL_SECONDS)

    def shown(self) -> AbstractContextManager[Show]:
        """Return a context inside which images are put into requests: it may run anywhere."""
        return in_requests()

    async def metrics(self) -> str:
        """Return its Prometheus metrics as text; empty where it has none."""
        return await self._probe.metrics(self.url)

    async def close(self) -> None:
        """Close the connections."""
        await self._probe.close()

    async def _missing(self) -> str | None:
        """Return what says that it does not serve yet, if anything does."""
        try:
            reply = await self._probe.health(self.url)
        except NoReplyError as error:
            return str(error)
        return f"it answers {reply.status}: {reply.gist}" if reply.passes else None
