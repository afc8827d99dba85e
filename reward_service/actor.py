"""The reward actor: one judge in a process of its own."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from rc_grpo.config import AnyJudgeConfig
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores
from rc_grpo.process import prepare_process
from reward_service.factory import make_judge
from reward_service.judge import ServedJudge
from reward_service.scoring import score_group
from reward_service.server_metrics import ServerMetrics

EXPORT_EVERY_S = 10.0


class RewardWorker:
    """One judge; `RewardActor` is it as a Ray actor, whose calls run at the same time on one asyncio loop.

    Args:
        name: of the actor.
        judge: the judge's name in the configuration.
        config: of the judge.
        attach: address and key of a server to use instead of starting one.
    """

    def __init__(self, name: str, judge: str, config: AnyJudgeConfig, attach: tuple[str, str] | None) -> None:
        prepare_process(config.threads)
        self.name = name
        self._judge_name = judge
        self._judge = make_judge(name, config, _session_logs(), attach)
        self._metrics = ServerMetrics(name)
        self._exporting: asyncio.Task[None] | None = None
        self._scoring: set[asyncio.Task[GroupScores]] = set()

    def __repr__(self) -> str:
        return f"{self.name}({self._judge.name})"

    async def open(self) -> dict[str, Any]:
        """Return, when it can score, where this worker is and who judges."""
        if isinstance(self._judge, ServedJudge):
            await self._judge.open()
            self._exporting = asyncio.create_task(self._export(self._judge))
        return await self.describe()

    async def describe(self) -> dict[str, Any]:
        """Return where this worker is and who judges."""
        return {"name": self.name, "pid": os.getpid(), "judge": self._judge.name}

    async def score(self, task: EditTask, group: pa.RecordBatch) -> GroupScores:
        """Score one group."""
        candidates = CandidateGroup.from_arrow(group)
        scoring = asyncio.ensure_future(score_group(self._judge, task, candidates, name=self._judge_name))
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
        if isinstance(self._judge, ServedJudge):
            await self._judge.close()

    async def _export(self, judge: ServedJudge) -> None:
        while True:
            self._metrics.export(await judge.metrics())
            await asyncio.sleep(EXPORT_EVERY_S)


def _session_logs() -> Path:
    """Return the folder whose files the Ray dashboard shows; the temporary one where Ray keeps it elsewhere."""
    logs = Path("/tmp/ray") / ray.get_runtime_context().get_session_name() / "logs"
    return logs if logs.is_dir() else Path(tempfile.gettempdir())


RewardActor = ray.remote(RewardWorker)
