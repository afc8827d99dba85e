"""The reward actor: one judge in a process of its own."""

import asyncio
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from rc_grpo.config import ConfigError, parse_judge
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores
from rc_grpo.process import prepare_process
from reward_service.factory import make_judge
from reward_service.judge import Judge, JudgeSetupError, ServedJudge
from reward_service.scoring import score_group
from reward_service.serving.server_metrics import ServerMetrics

EXPORT_EVERY_S = 10.0


class RewardWorker:
    """One judge; `RewardActor` is it as a Ray actor, whose calls run at the same time on one asyncio loop.

    Args:
        name: of the actor.
        judge: the judge's name in the configuration.
        config: of the judge, as plain values: its class may be of a package that this node lacks.
        attach: address and key of a server to use instead of starting one.
        prune: see `rc_grpo.config.RewardConfig`.
    """

    def __init__(
        self,
        name: str,
        judge: str,
        config: Mapping[str, Any],
        attach: tuple[str, str] | None,
        prune: int | None = None,
    ) -> None:
        self.name = name
        self._judge_name = judge
        self._config = config
        self._attach = attach
        self._prune = prune
        self._made: Judge | None = None
        self._metrics = ServerMetrics(name)
        self._exporting: asyncio.Task[None] | None = None
        self._scoring: set[asyncio.Task[GroupScores]] = set()

    def __repr__(self) -> str:
        return f"{self.name}({self._judge_name if self._made is None else self._made.name})"

    async def open(self) -> dict[str, Any]:
        """Return, when it can score, where this worker is and who judges.

        Raises:
            JudgeSetupError: it never will here, for a reason that a configuration or this node has.
        """
        try:
            config = parse_judge(self._config)
        except ConfigError as error:
            raise JudgeSetupError(f"{self.name} on {platform.node()}: {error}") from error
        prepare_process(config.threads)
        # In a thread, as it may load a model for minutes.
        self._made = await asyncio.to_thread(make_judge, self.name, config, _session_logs(), self._attach)
        if isinstance(self._made, ServedJudge):
            await self._made.open()
            self._exporting = asyncio.create_task(self._export(self._made))
        return await self.describe()

    async def describe(self) -> dict[str, Any]:
        """Return where this worker is and who judges; nobody, before it was opened."""
        return {"name": self.name, "pid": os.getpid(), "judge": None if self._made is None else self._made.name}

    @property
    def _judge(self) -> Judge:
        assert self._made is not None, f"{self.name} is asked before it was opened"
        return self._made

    async def score(self, task: EditTask, group: pa.RecordBatch) -> GroupScores:
        """Score one group."""
        candidates = CandidateGroup.from_arrow(group)
        scoring = asyncio.ensure_future(
            score_group(self._judge, task, candidates, name=self._judge_name, prune=self._prune)
        )
        self._scoring.add(scoring)
        scoring.add_done_callback(self._scoring.discard)
        return await scoring

    async def ready(self) -> None:
        """Return when the judge can score again."""
        if isinstance(self._judge, ServedJudge):
            await self._judge.ready()

    async def metrics(self) -> dict[str, float]:
        """Return what the judge's server last said of itself; empty for a judge without a server."""
        return self._metrics.latest

    async def close(self, grace: float) -> None:
        """Let the scorings under way finish, so many seconds at most, and end what the judge started."""
        if self._exporting is not None:
            self._exporting.cancel()
        if self._scoring:
            await asyncio.wait(self._scoring, timeout=grace)
        if isinstance(self._made, ServedJudge):
            await self._made.close()

    async def _export(self, judge: ServedJudge) -> None:
        while True:
            self._metrics.export(await judge.metrics())
            await asyncio.sleep(EXPORT_EVERY_S)


def _session_logs() -> Path:
    """Return the folder whose files the Ray dashboard shows; the temporary one where Ray keeps it elsewhere."""
    logs = Path("/tmp/ray") / ray.get_runtime_context().get_session_name() / "logs"
    return logs if logs.is_dir() else Path(tempfile.gettempdir())


RewardActor = ray.remote(RewardWorker)
