"""One training run: its folder, its pools, its records. The verbs that `deploy.loop` is written in."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import asdict
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError

from deploy import control
from deploy.assembly import Services, make_services, make_source
from deploy.autoscaling import wanted_workers
from deploy.checkpoints import CheckpointError, Checkpoints, Manifest
from deploy.cluster import namespace, whereabouts
from deploy.evaluation import HeldOut, PairedGain, evaluate
from deploy.folder import SUMMARY, RunFolder
from deploy.ledger import Ledger
from deploy.metrics import BusyShares, MetricsLog, batch_metrics
from deploy.observability.exporter import RunMetrics, metrics_agent
from deploy.plan import plan_in_words
from deploy.progress import Progress
from deploy.provenance import provenance
from deploy.recorder import start_recorder
from deploy.services import Learner
from deploy.status import status_of
from deploy.stopping import RunStoppedError, Stop
from deploy.tracking.trackers import Trackers
from learner.errors import LearnerLostError
from learner.group import UpdateReport
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.durable import write_whole
from rc_grpo.messages import EditTask, PolicyVersion, ScoredGroup
from rc_grpo.pool import WorkerPool
from rc_grpo.waiting import Waits
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool

logger = logging.getLogger(__name__)


class Run:
    """A run from its first file to its summary.

    Args:
        config: resolved and validated.
        progress: where a person watches.
        resume: go on from the folder's last whole checkpoint, instead of beginning.

    Raises:
        deploy.folder.RunExistsError: the folder exists, and this is not to resume it.
        rc_grpo.data.DataError: the tasks cannot be read.
    """

    def __init__(self, config: RunConfig, progress: Progress, *, resume: bool = False) -> None:
        self.config = config
        self.files = RunFolder(config.output.root / config.name)
        self.folder = self.files.path
        self.finished = False
        self.done = 0
        self.losses = 0
        """Times that the learner was lost since the last checkpoint."""
        self.stop = Stop()
        self.waits = Waits()
        if not resume:
            self.files.check_free()
        self._progress = progress
        tasks = load_tasks(config.data.train)
        self._heldout: Sequence[EditTask] = ()
        if config.data.heldout is not None and config.evaluation.tasks:
            heldout = load_tasks(config.data.heldout, purpose="evaluate")
            self._heldout = heldout[: config.evaluation.tasks]
        self._refused = {"train": tasks.refused}
        self._tasks = len(tasks)
        loop = config.loop
        self.ledger = Ledger(self._tasks, loop.updates, loop.groups_per_update, loop.max_staleness, config.seed)
        self.experience = make_source(config, tasks, self.ledger, self.stop.asked)
        self._checkpoints = Checkpoints(self.folder / "checkpoints", config.output.checkpoints_kept)
        self._evaluations: dict[int, HeldOut] = {}
        self._busy = BusyShares()
        self._recording: ObjectRef[Any] | None = None
        self._earlier_seconds = 0.0
        self._saved: int | None = None

    @property
    def updates_left(self) -> range:
        """The updates still to be made, 0-based."""
        return range(self.done, self.config.loop.updates)

    def plan(self) -> str:
        """Return in a few lines what is about to happen."""
        return plan_in_words(self.config, self.folder, self._tasks, len(self._refused["train"]), len(self._heldout))

    @asynccontextmanager
    async def pools(self) -> AsyncIterator[Services]:
        """Start the three services and the run's helpers; stop them however the run ends."""
        config, home = self.config, namespace(self.config.name)
        rollouts, judges, learner = make_services(config)
        tracked = Trackers(config, self.folder)
        with self.files.driven(), tracked as self._trackers, self.stop.on_signals(config.loop.stop_deadline_s):
            self.files.describe(config, self._environment())
            with closing(MetricsLog(self.folder, self._trackers)) as self._log:
                self._recorder = start_recorder(self.folder, config.output, home)
                self._exported = RunMetrics(config, metrics_agent(config.name))
                desk = control.start_control(home)
                self.files.announce(whereabouts(home))
                everyone: list[WorkerPool[Any]] = [rollouts, *judges.pools.values()]
                serving = asyncio.create_task(control.serve(desk, lambda: self._status(everyone, learner), everyone))
                try:
                    with self._progress.waiting("starting rollout, reward and learner actors"):
                        fed = config.loop.feed is not None
                        pools = [learner] if fed else [rollouts, judges, learner]
                        await self.stop.unless_asked(asyncio.gather(*(pool.open() for pool in pools)))
                    self._started = self._mark = time.monotonic()
                    yield rollouts, judges, learner
                finally:
                    await self.experience.cancel()
                    serving.cancel()
                    await judges.drain()
                    for pool in (rollouts, judges, learner):
                        pool.close()
                    for helper in (self._recorder, desk):
                        ray.kill(helper)

    @asynccontextmanager
    async def from_last_checkpoint(self, learner: Learner) -> AsyncIterator[None]:
        """Bring learner, ledger and records to the last whole checkpoint, then run the block.

        A learner that is lost in the block ends it; entered again, it starts from the last checkpoint then. A stop that
        was asked for is answered by a checkpoint.

        Raises:
            LearnerLostError: it was lost more often in a row than ``learner.restarts``.
            RunStoppedError: after that checkpoint, with how to go on.
        """
        try:
            await self._restore(learner)
            yield
        except LearnerLostError as error:
            await self.experience.cancel()
            learner.close()
            self.losses += 1
            if self.losses > self.config.learner.restarts:
                raise
            self._progress.say(f"{error}; starting it again from the last checkpoint")
        except RunStoppedError as error:
            await self.experience.cancel()
            await self._checkpoint(learner)
            raise RunStoppedError(
                f"stopped after update {self.done}, as asked; go on with: rc-grpo train --resume {self.folder}"
            ) from error

    async def evaluate(self, rollouts: RolloutPool, judges: JudgePanel, version: PolicyVersion) -> None:
        """Score the held-out tasks under the rollout workers' newest version, when it is time and not yet done.

        A run that learns from a log has no rollout workers and evaluates nothing.
        """
        every = self.config.evaluation.every
        due = self.done in (0, self.config.loop.updates) or (every is not None and self.done % every == 0)
        if not due or not self._heldout or self.done in self._evaluations or self.config.loop.feed is not None:
            return
        with self._progress.phase(f"held-out evaluation of {version}", len(self._heldout)) as advance:
            config, seed = self.config.evaluation, self.config.seed
            evaluating = evaluate(self._heldout, rollouts, judges, config, seed, advance)
            with self.waits.on("the run", f"the held-out evaluation of {version}"):
                heldout, _ = await self.stop.unless_asked(evaluating)
        self._evaluations[self.done] = heldout
        metrics = heldout.metrics()
        self._log.write(self.done, metrics, event="evaluation")
        self._exported.export(metrics)
        self.files.keep_evaluation(self.done, heldout.as_json([task.task_id for task in self._heldout]))
        self._progress.say(f"held-out reward of {version}: {metrics['heldout/reward']:.4f}")
        self._mark = time.monotonic()

    async def record(
        self,
        batch: Sequence[ScoredGroup],
        report: UpdateReport,
        rollouts: RolloutPool,
        judges: JudgePanel,
        learner: Learner,
    ) -> None:
        """Log an update; hand its groups to the recorder; checkpoint, evaluate and resize when it is time."""
        output = self.config.output
        self.done += 1
        pools = {pool.role: pool for pool in (rollouts, *judges.pools.values())}
        metrics = batch_metrics(batch, report) | self._pace(rollouts) | await judges.server_metrics()
        metrics |= self._busy.shares({role: pool.summary for role, pool in pools.items()})
        self._log.write(self.done, metrics, event="update", version=str(learner.version))
        self._exported.update(metrics, batch)
        with_grid = self.done % output.grid_every == 0 or self.done == 1
        await self._recorded()
        self._recording = self._recorder.record.remote(self.done, list(batch), report.advantages, with_grid)
        if output.policies == "all":
            await self._keep_policy(learner)
        self._progress.update(self.done, self.config.loop.updates, metrics)
        self._autoscale(pools, metrics)
        if self.done % output.checkpoint_every == 0:
            await self._checkpoint(learner)
        if self.updates_left:
            await self.evaluate(rollouts, judges, learner.version)

    async def finish(self, rollouts: RolloutPool, judges: JudgePanel, learner: Learner) -> None:
        """Evaluate and export the policy, write the summary, say what came of it.

        Raises:
            RunStoppedError: the updates ended because a stop was asked for.
        """
        if self.stop.asked.is_set():
            raise RunStoppedError
        await self._checkpoint(learner)
        await self.evaluate(rollouts, judges, learner.version)
        digest = await learner.export(self.folder / "lora")
        await self._recorded()
        summary: dict[str, Any] = {
            "updates": self.done,
            "final_version": asdict(learner.version),
            "exported_digest": digest,
            "training_minutes": self._seconds() / 60,
            "ledger": self.experience.counts,
        }
        if len(self._evaluations) > 1:
            first, last = self._evaluations[min(self._evaluations)], self._evaluations[max(self._evaluations)]
            gains = PairedGain.of_each_judge(first, last)
            by_judge = {name: gain.as_dict() for name, gain in gains.items()}
            summary["heldout"] = PairedGain.between(first, last).as_dict() | {"by_judge": by_judge}
            self._progress.gains(gains)
        write_whole(self.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
        self._trackers.summary(self.done, summary)
        self.finished = True
        lora = f"; the LoRA for diffusers in {self.folder / 'lora'}" if digest else ""
        self._progress.say(f"everything is in {self.folder}{lora}")

    async def _restore(self, learner: Learner) -> None:
        if not learner.is_open:
            with self._progress.waiting("starting learner actors"):
                await self.stop.unless_asked(learner.open())
        latest = await asyncio.to_thread(self._checkpoints.latest)
        if latest is not None:
            name, manifest = latest
            await learner.load(self._checkpoints.folder, name)
            version, _ = await learner.publish()
            if version != manifest.version:
                raise CheckpointError(f"checkpoint {name} is of {manifest.version}, but restored to {version}")
            self.done, self._earlier_seconds = manifest.update, manifest.training_seconds
            self._started = self._mark = time.monotonic()
            self._saved = self.done
            self.ledger.restore(manifest.ledger)
            await self._recorded()
            aside = self.files.aside(self.done)
            self.files.set_aside(self.done, aside)
            self._log.rewind(self.done, aside)
            made = self.files.evaluations()
            self._evaluations = {update: HeldOut.from_json(text) for update, text in made.items()}
            self._progress.say(f"at update {self.done}, {version}, from {name}")
            return
        await learner.publish()
        await self._checkpoint(learner)

    async def _checkpoint(self, learner: Learner) -> None:
        if self._saved == self.done:
            return
        begun = self._checkpoints.begin(self.done)
        await learner.save(self._checkpoints.folder, begun)
        await self._recorded()
        manifest = Manifest(self.done, learner.version, self.ledger.snapshot(), self._seconds())
        await asyncio.to_thread(self._checkpoints.commit, begun, manifest)
        await self._keep_policy(learner)
        self._saved, self.losses = self.done, 0

    async def _keep_policy(self, learner: Learner) -> None:
        keeping = self._recorder.keep.remote(learner.version, learner.weights)
        await self.waits.within(
            self.config.output.record_deadline_s, keeping, "the run", f"{learner.version} to be kept"
        )

    async def _recorded(self) -> None:
        """Wait for the recorder's last job, so that a slow disk holds the run up instead of filling the memory."""
        recording, self._recording = self._recording, None
        if recording is None:
            return
        deadline = self.config.output.record_deadline_s
        try:
            await self.waits.within(deadline, recording, "the run", "the recorder to write an update")
        except ObjectLostError as error:
            logger.warning("an update's experience is not in the log: its groups were lost with their node: %s", error)
        self._trackers.grids(self.files.grids())

    def _autoscale(self, pools: dict[str, WorkerPool[Any]], metrics: dict[str, float]) -> None:
        for role, pool in pools.items():
            if pool.autoscale is None:
                continue
            waited = metrics.get(f"seconds/waiting_for_{'rollouts' if role == 'rollout' else 'scores'}", 0.0)
            share = waited / max(metrics["seconds/update_total"], 1e-9)
            wanted = wanted_workers(pool.size, share, metrics[f"pool/{role}_busy_share"], pool.autoscale)
            if wanted != pool.size:
                self._progress.say(f"{role}: {pool.size} -> {wanted} workers (the learner waited {share:.0%})")
                pool.resize(wanted)

    def _pace(self, rollouts: RolloutPool) -> dict[str, float]:
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        waits = {f"seconds/waiting_for_{what}": value for what, value in self.experience.seconds_waited().items()}
        return {
            "seconds/update_total": seconds,
            "seconds/waiting_for_groups": sum(waits.values()),
            "seconds/version_to_proof_max": max(rollouts.sync_seconds.values(), default=math.nan),
            "policy/canary_shift": max((proof.canary_shift for proof in rollouts.proofs.values()), default=math.nan),
            **waits,
            **{f"ledger/{name}": float(count) for name, count in self.experience.counts.items()},
        }

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    def _status(self, pools: Sequence[WorkerPool[Any]], learner: Learner) -> dict[str, Any]:
        status = status_of(self, pools, learner)
        self._exported.live(self, pools, learner)
        self._progress.waiting_for(status["waits"])
        return status

    def _environment(self) -> dict[str, Any]:
        return provenance() | {
            "tasks_refused": {split: [asdict(refusal) for refusal in items] for split, items in self._refused.items()},
            "trains_on_benchmark": self.config.data.train.allow_benchmark,
        }
