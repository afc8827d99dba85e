"""One training run: who owns what of it, and the verbs that `deploy.loop` is written in."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from typing import Any

from deploy.cluster import namespace, whereabouts
from deploy.evaluating.heldout import HeldOutExam
from deploy.evaluating.tasks import training_tasks
from deploy.planning.in_words import plan_in_words
from deploy.records import data
from deploy.records.folder import RunFolder
from deploy.records.metrics import pace_metrics
from deploy.records.provenance import run_provenance
from deploy.run.autoscaling import autoscale
from deploy.run.books import Books
from deploy.run.guards import Guards
from deploy.run.position import Position
from deploy.run.recovery import Recovery
from deploy.run.services import Services
from deploy.stopping import RunStoppedError, Stop
from deploy.watching import control, snapshot
from deploy.watching.progress import Progress
from learner.group import UpdateReport
from learner.protocol import Learner
from rc_grpo.config import RunConfig
from rc_grpo.messages import PolicyVersion, ScoredGroup
from rc_grpo.waiting import Waits
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool


class Run:
    """A run from its first file to its summary.

    Args:
        config: resolved and validated.
        progress: where a person watches.
        resume: go on from the folder's last whole checkpoint, instead of beginning.

    Raises:
        deploy.records.folder.RunExistsError: the folder exists, and this is not to resume it.
        rc_grpo.data.DataError, rc_grpo.config.ConfigError: the tasks cannot be read or judged, or are others now.
    """

    def __init__(self, config: RunConfig, progress: Progress, *, resume: bool = False) -> None:
        self.config = config
        self.stop, self.waits = Stop(), Waits()
        self._progress, self._files = progress, RunFolder.of(config)
        self.folder = self._files.path
        if not resume:
            self._files.check_free()
        self._tasks, self._exam = training_tasks(config), HeldOutExam(config)
        self._fingerprints = data.fingerprints(self._files, self._tasks, self._exam.tasks, resume=resume)
        self._services = Services(config, self._tasks, self.stop.asked)
        self._guards = Guards(config, self._services.lessons, self.folder)
        self._position = Position(config.loop.updates)
        self._books = Books(config, self._files, progress, self.waits)
        self._recovery = Recovery(config, self._position, self._services.ledger, self._books, self._exam, progress)
        self.experience = self._services.source

    @property
    def done(self) -> int:
        """Updates made."""
        return self._position.done

    @property
    def finished(self) -> bool:
        """The run has come to its end."""
        return self._position.finished

    @property
    def updates_left(self) -> range:
        """The updates still to be made, 0-based."""
        return self._position.left

    def plan(self) -> str:
        """Return in a few lines what is about to happen."""
        return plan_in_words(self.config, self.folder, *map(len, (self._tasks, self._tasks.refused, self._exam.tasks)))

    @asynccontextmanager
    async def pools(self) -> AsyncIterator[tuple[RolloutPool, JudgePanel, Learner]]:
        """Start the three services and the run's helpers; stop them however the run ends."""
        services, home = self._services, namespace(self.config.name)
        stoppable = self.stop.on_signals(self.config.loop.stop_deadline_s)
        with self._files.driven(), self._books.open(run_provenance(self.config, self._tasks.refused)), stoppable:
            async with control.answering(home, self._look, list(services.pools.values()), self.stop):
                data.keep(self._files, self._fingerprints)
                self._files.announce(whereabouts(home))
                async with services.running(self.stop, self._progress):
                    self._position.clock.start()
                    yield services.rollouts, services.judges, services.learner

    def from_last_checkpoint(self, learner: Learner) -> AbstractAsyncContextManager[None]:
        """Bring everything to the last whole checkpoint, then run the block; see `Recovery.from_last_checkpoint`."""
        return self._recovery.from_last_checkpoint(learner, self.experience, self.stop)

    async def evaluate(self, rollouts: RolloutPool, judges: JudgePanel, version: PolicyVersion) -> None:
        """Score the held-out tasks under the rollout workers' newest version, when it is time and not yet done."""
        if not self._exam.due(self.done):
            return
        what = f"held-out evaluation of {version}"
        with self._progress.phase(what, len(self._exam.tasks)) as advance, self.waits.on("the run", f"the {what}"):
            heldout = await self.stop.unless_asked(self._exam.take(self.done, rollouts, judges, advance))
        await self._books.evaluation(self.done, heldout, self._exam.task_ids, self._services.learner)
        self._position.clock.lap()
        self._guards.after_evaluation(heldout, self.updates_left)

    async def record(
        self,
        batch: Sequence[ScoredGroup],
        report: UpdateReport,
        rollouts: RolloutPool,
        judges: JudgePanel,
        learner: Learner,
    ) -> None:
        """Write an update down; checkpoint, evaluate and resize when it is time."""
        self._position.done += 1
        pools, seconds, waited = self._services.pools, self._position.clock.lap(), self.experience.seconds_waited()
        pace = pace_metrics(seconds, waited, self.experience.counts, rollouts)
        metrics = self._books.measures(batch, report, pools) | pace | await judges.server_metrics()
        await self._books.update(self.done, batch, report, metrics, learner)
        self._guards.after_update(self.done, report.skipped, metrics)
        autoscale(pools, metrics, self._progress.say)
        if self.done % self.config.output.checkpoint_every == 0:
            await self._recovery.checkpoint(learner)
        if self.updates_left:
            await self.evaluate(rollouts, judges, learner.version)

    async def finish(self, rollouts: RolloutPool, judges: JudgePanel, learner: Learner) -> None:
        """Evaluate and export the policy, write the summary, say what came of it.

        Raises:
            RunStoppedError: a stop was asked for.
            GuardError: nothing was learned.
        """
        if self.stop.asked.is_set():
            raise RunStoppedError
        self._guards.at_the_end()
        await self._recovery.checkpoint(learner)
        await self.evaluate(rollouts, judges, learner.version)
        digest = await learner.export(self.folder / "lora")
        summary = {"updates": self.done, "final_version": asdict(learner.version), "exported_digest": digest}
        summary |= {"training_minutes": self._position.clock.seconds / 60, "ledger": self.experience.counts}
        await self._books.close(self.done, summary, self._exam.gains())
        self._position.finished = True

    def _look(self) -> dict[str, Any]:
        return self._books.look(snapshot.take(self._position, self._services, self.stop, self.waits))
