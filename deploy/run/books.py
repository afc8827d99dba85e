"""What a run writes down: metrics, trackers, exported figures, and its groups by way of the recorder."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError

from deploy.cluster import namespace
from deploy.observability.exporter import RunMetrics, metrics_agent
from deploy.records.best import BestLora
from deploy.records.folder import RunFolder
from deploy.records.metrics import BusyShares, MetricsLog, batch_metrics
from deploy.records.recorder import start_recorder
from deploy.tracking.trackers import Trackers
from deploy.watch.beside import page_beside
from deploy.watching.progress import Progress
from deploy.watching.snapshot import Snapshot
from learner.group import UpdateReport
from learner.protocol import Learner
from rc_grpo.config import RunConfig
from rc_grpo.evaluation.gains import HeldOut, PairedGain
from rc_grpo.messages import ScoredGroup
from rc_grpo.pool import WorkerPool
from rc_grpo.waiting import Waits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Opened:
    log: MetricsLog
    exported: RunMetrics
    recorder: Any


class Books:
    """Everything that a run is told by, while it runs and afterwards.

    Args:
        config: of the run.
        files: of the run.
        progress: where a person watches.
        waits: of the run.
    """

    def __init__(self, config: RunConfig, files: RunFolder, progress: Progress, waits: Waits) -> None:
        self._config = config
        self._files = files
        self._progress = progress
        self._waits = waits
        self._trackers = Trackers(config, files.path)
        self._best = BestLora(files.path, config.evaluation.measured_by)
        self._busy = BusyShares()
        self._opened: _Opened | None = None
        self._recording: ObjectRef[Any] | None = None

    @contextmanager
    def open(self, environment: Mapping[str, Any]) -> Iterator[None]:
        """Open them for the block, which begins with the run's description.

        Args:
            environment: what the run runs with and on.
        """
        config, path = self._config, self._files.path
        with self._trackers:
            self._files.describe(config, environment)
            page = page_beside(path, self._progress.say) if config.output.watch else nullcontext()
            with page, closing(MetricsLog(path, self._trackers)) as log:
                recorder = start_recorder(path, config.output, namespace(config.name))
                self._opened = _Opened(log, RunMetrics(config, metrics_agent(config.name)), recorder)
                try:
                    yield
                finally:
                    self._opened = None
                    ray.kill(recorder)

    def measures(
        self, batch: Sequence[ScoredGroup], report: UpdateReport, pools: Mapping[str, WorkerPool[Any]]
    ) -> dict[str, float]:
        """Return what is measured of an update's batch, and of the pools since this was last asked."""
        summaries = {role: pool.summary for role, pool in pools.items()}
        return batch_metrics(batch, report) | self._busy.shares(summaries)

    async def update(
        self,
        done: int,
        batch: Sequence[ScoredGroup],
        report: UpdateReport,
        metrics: Mapping[str, float],
        learner: Learner,
    ) -> None:
        """Write an update down, and hand its groups to the recorder."""
        output, books = self._config.output, self._open()
        books.log.write(done, metrics, event="update", version=str(learner.version))
        books.exported.update(metrics, batch)
        await self.recorded()
        with_grid = done % output.grid_every == 0 or done == 1
        self._recording = books.recorder.record.remote(done, list(batch), report.advantages, with_grid)
        if output.policies == "all":
            await self.keep_policy(learner)
        self._progress.update(done, self._config.loop.updates, metrics)

    async def evaluation(self, done: int, heldout: HeldOut, tasks: Sequence[str], learner: Learner) -> None:
        """Write a held-out evaluation down, and keep the version if none before it did better.

        Args:
            done: updates made before it.
            heldout: what came of it.
            tasks: ids, in the order of its arrays.
            learner: which has the version that was evaluated.
        """
        books, metrics = self._open(), heldout.metrics()
        books.log.write(done, metrics, event="evaluation")
        books.exported.export(metrics)
        self._files.keep_evaluation(done, heldout.as_json(tasks))
        self._progress.say(f"held-out reward of {heldout.version}: {metrics['heldout/reward']:.4f}")
        await self._best.consider(done, heldout, learner)

    def look(self, snapshot: Snapshot) -> dict[str, Any]:
        """Show and export what the run does at this moment; return it as `rc-grpo status` takes it."""
        self._open().exported.live(snapshot)
        seen = snapshot.as_dict()
        self._progress.waiting_for(seen["waits"])
        return seen

    async def close(
        self, done: int, summary: Mapping[str, Any], gains: tuple[PairedGain, dict[str, PairedGain]] | None
    ) -> None:
        """Write what came of the run, when the last of its groups are written.

        Args:
            done: updates made.
            summary: of the run.
            gains: of the held-out reward, and of each judge's; None where there were not two evaluations.
        """
        await self.recorded()
        whole = dict(summary)
        if gains is not None:
            total, judged = gains
            whole["heldout"] = total.as_dict() | {"by_judge": {name: gain.as_dict() for name, gain in judged.items()}}
            self._progress.gains(judged)
        whole["best"] = best = self._best.measured
        self._files.summarise(whole)
        self._trackers.summary(done, whole)
        lora = "" if whole["exported_digest"] is None else f"; the LoRA for diffusers in {self._files.path / 'lora'}"
        if best is not None and best["update"] != done:
            lora += f", and that of update {best['update']}, which did best on held-out tasks, in {self._best.folder}"
        self._progress.say(f"everything is in {self._files.path}{lora}")

    async def keep_policy(self, learner: Learner) -> None:
        """Have the weights kept that the learner last published."""
        keeping = self._open().recorder.keep.remote(learner.version, learner.weights)
        await self._waits.within(
            self._config.output.record_deadline_s, keeping, "the run", f"{learner.version} to be kept"
        )

    async def recorded(self) -> None:
        """Wait for the recorder's last job, so that a slow disk holds the run up instead of filling the memory."""
        recording, self._recording = self._recording, None
        if recording is None:
            return
        deadline = self._config.output.record_deadline_s
        try:
            await self._waits.within(deadline, recording, "the run", "the recorder to write an update")
        except ObjectLostError as error:
            logger.warning("an update's experience is not in the log: its groups were lost with their node: %s", error)
        self._trackers.grids(self._files.grids())

    async def rewind(self, done: int) -> None:
        """Go back to an update: what was written of later ones is set aside."""
        await self.recorded()
        aside = self._files.aside(done)
        self._files.set_aside(done, aside)
        self._open().log.rewind(done, aside)

    def _open(self) -> _Opened:
        assert self._opened is not None, "the run's books are closed"
        return self._opened
