"""A line to the driver of a run, by way of its control actor: questions and orders, each with a deadline."""

import asyncio
import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from deploy.records.folder import RunFolder
from deploy.watching.asking import ANSWER_DEADLINE_S
from rc_grpo.config import ConfigError

CONNECT_DEADLINE_S = 30.0
"""Beside the answer's own: the process that asks has Ray to import and a cluster to reach first."""
RETRY_S = 15.0
CALLER = "deploy.watch.caller"
_LONGEST_ANSWER = 16 << 20


class NotReachableError(ConfigError):
    """The run's driver does not answer; says why."""


class Driver(Protocol):
    """Who is asked about a run, and told what to do with it."""

    async def ask(self, verb: str, *arguments: str | int) -> Any:
        """Return the answer to ``status``, to ``scale`` with a pool and how many workers, or to ``stop``.

        Raises:
            NotReachableError: nobody answers in time.
        """
        ...

    async def close(self) -> None:
        """End the talk."""
        ...


class Line:
    """Asks through a process of its own (see `deploy.watch.caller`), which is started when there is something to ask.

    Args:
        folder: of the run.
        address: of its cluster; None for what the folder says.
    """

    def __init__(self, folder: Path, address: str | None) -> None:
        self._command = [sys.executable, "-m", CALLER, str(folder), address or ""]
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._files, self._address = RunFolder(folder), address
        self._called: dict[str, str] | None = None
        self._refused_at, self._why = -math.inf, ""

    async def ask(self, verb: str, *arguments: str | int) -> Any:
        """See `Driver.ask`. A status is not asked for within `RETRY_S` of a failure; an order always is."""
        async with self._one_at_a_time:
            await self._find()
            if verb == "status" and time.monotonic() - self._refused_at < RETRY_S:
                raise NotReachableError(self._why)
            try:
                async with asyncio.timeout(CONNECT_DEADLINE_S + ANSWER_DEADLINE_S):
                    return await self._asked([verb, *arguments])
            except (ValueError, TimeoutError, OSError) as error:
                await self._hang_up()
                late = f"no answer within {CONNECT_DEADLINE_S + ANSWER_DEADLINE_S:g} s"
                self._why = str(error) or late
                self._refused_at = time.monotonic()
                raise NotReachableError(self._why) from error
            except asyncio.CancelledError:
                # Its answer would be taken for the next one's.
                await self._hang_up()
                raise

    async def close(self) -> None:
        """End the process."""
        async with self._one_at_a_time:
            await self._hang_up()

    async def _find(self) -> None:
        """Look whether the run is where it was, before a process is started to reach it."""
        try:
            where = self._files.whereabouts
        except ValueError as error:
            raise NotReachableError(str(error)) from error
        if where != self._called:
            await self._hang_up()
            self._called, self._refused_at = where, -math.inf
        if where is None and self._address is None:
            raise NotReachableError("nobody drives it now")

    async def _asked(self, question: list[str | int]) -> Any:
        process = self._process = self._process or await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LONGEST_ANSWER,
            # Ctrl-C is for the page, which ends this process itself.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question).encode() + b"\n")
        # One that cannot reach the run may have said so and ended before it was asked.
        with suppress(ConnectionError):
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise NotReachableError("the connection to the run's cluster ended")
        said = json.loads(line)
        if "error" in said:
            raise NotReachableError(said["error"])
        return said["answer"]

    async def _hang_up(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
