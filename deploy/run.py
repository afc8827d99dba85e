"""One training run: its folder, its pools, its records. The verbs that `deploy.loop` is written in."""

import asyncio
import json
import logging
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import ray
from ray import ObjectRef

from deploy.cluster import amounts, beside_the_driver, demands, namespace
from deploy.collector import Collector
from deploy.evaluation import HeldOut, PairedGain, evaluate
from deploy.ledger import Ledger
from deploy.metrics import BusyShares, MetricsLog, batch_metrics
from deploy.progress import Progress
from deploy.provenance import provenance
from deploy.recorder import READ_DEADLINE_S, RecorderActor
from learner.group import LearnerGroup, UpdateReport
from learner.work import RunShape
from rc_grpo.config import RunConfig, dump
from rc_grpo.data import load_tasks
from rc_grpo.messages import EditTask, PolicyVersion, ScoredGroup
from rc_grpo.pool import within
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool

logger = logging.getLogger(__name__)
Pools = tuple[RolloutPool, JudgePanel, LearnerGroup]


class RunExistsError(FileExistsError):
    """A run of that name has left a folder already; nothing of it is overwritten."""


class Run:
    """A run from its first file to its summary.

    Args:
        config: resolved and validated.
        progress: where a person watches.

    Raises:
        RunExistsError: the folder exists.
        rc_grpo.data.DataError: the tasks cannot be read.
    """

    def __init__(self, config: RunConfig, progress: Progress) -> None:
        self.config = config
        self.folder = (config.output.root / config.name).resolve()
        self._progress = progress
        tasks = load_tasks(config.data.train)
        self._heldout: Sequence[EditTask] = ()
        if config.data.heldout is not None and config.evaluation.tasks:
            heldout = load_tasks(config.data.heldout, purpose="evaluate")
            self._heldout = heldout[: config.evaluation.tasks]
        loop = config.loop
        self.updates = range(loop.updates)
        self._tasks = len(tasks)
        ledger = Ledger(self._tasks, loop.updates, loop.groups_per_update, loop.max_staleness, config.seed)
        self.collector = Collector(ledger, tasks, config.rollout.group_size)
        self._evaluations: list[HeldOut] = []
        self._busy = BusyShares()
        self._done = 0
        self._recording: ObjectRef[Any] | None = None
        self._refused = {"train": tasks.refused}
        if self.folder.exists():
            raise RunExistsError(f"{self.folder} exists; choose another name (--set name=...) or remove it")

    def plan(self) -> str:
        """Return in a few lines what is about to happen."""
        config, rollout, objective = self.config, self.config.rollout, self.config.objective
        pools = ", ".join(
            f"{demand.count} {demand.pool} x ({amounts(demand.each.as_ray())})" for demand in demands(config)
        )
        exploration = f"{rollout.exploration}, alpha {rollout.alpha_edit:g} in the mask, {rollout.alpha_base:g} outside"
        if rollout.exploration == "global":
            exploration = f"global, alpha {rollout.alpha_edit:g}"
        return (
            f"run      {config.name} in {self.folder}\n"
            f"editor   {config.editor.model}, {config.editor.dtype}, LoRA rank {config.editor.lora.rank}\n"
            f"tasks    {self._tasks} to train on, {len(self._refused['train'])} refused, "
            f"{len(self._heldout)} held out\n"
            f"pools    {pools}, ZeRO {config.learner.zero_stage}\n"
            f"rollout  {rollout.group_size} candidates, {rollout.steps} {rollout.solver} steps, {exploration}\n"
            f"learning {config.loop.updates} updates of {config.loop.groups_per_update} groups, "
            f"{objective.anchors} anchors by {objective.anchor_path}, ACD weight {objective.acd_weight:g}, "
            f"max staleness {config.loop.max_staleness}"
        )

    @asynccontextmanager
    async def pools(self) -> AsyncIterator[Pools]:
        """Start the three services and the recorder; stop them however the run ends."""
        config = self.config
        self._create_folder()
        run_shape = RunShape(
            config.seed,
            config.rollout.solver,
            config.rollout.steps,
            config.loop.updates,
            config.loop.max_staleness,
            config.reward.weights,
        )
        home = namespace(config.name)
        rollouts = RolloutPool(config.editor, config.rollout, config.seed, home)
        judges = JudgePanel(config.reward, home)
        learner = LearnerGroup(config.editor, config.learner, config.objective, run_shape, home)
        recorder = RecorderActor.options(name="recorder", namespace=home, **beside_the_driver())
        self._recorder = recorder.remote(self.folder, config.output.experience)
        self._log = MetricsLog(self.folder)
        try:
            with self._progress.waiting("starting rollout, reward and learner actors"):
                await asyncio.gather(rollouts.open(), judges.open(), learner.open())
            self._started = self._mark = time.monotonic()
            yield rollouts, judges, learner
        finally:
            self.collector.cancel()
            await judges.drain()
            for pool in (rollouts, judges, learner):
                pool.close()
            ray.kill(self._recorder)
            self._log.close()

    async def evaluate(self, rollouts: RolloutPool, judges: JudgePanel, version: PolicyVersion) -> None:
        """Score the held-out tasks under the version that the rollout workers hold."""
        if not self._heldout:
            return
        with self._progress.phase(f"held-out evaluation of {version}", len(self._heldout)) as advance:
            heldout, _ = await evaluate(
                self._heldout, rollouts, judges, self.config.evaluation, self.config.seed, advance
            )
        self._evaluations.append(heldout)
        metrics = heldout.metrics()
        self._log.write(self._done, metrics, event="evaluation")
        path = self.folder / "evaluations" / f"update-{self._done:05d}.json"
        path.parent.mkdir(exist_ok=True)
        ids = [task.task_id for task in self._heldout]
        rewards = {name: dict(zip(ids, values.tolist(), strict=True)) for name, values in heldout.rewards.items()}
        path.write_text(json.dumps({"version": asdict(version), "metrics": metrics, "rewards": rewards}))
        self._progress.say(f"held-out reward of {version}: {metrics['heldout/reward']:.4f}")
        self._mark = time.monotonic()

    async def record(
        self,
        batch: Sequence[ScoredGroup],
        report: UpdateReport,
        rollouts: RolloutPool,
        judges: JudgePanel,
        learner: LearnerGroup,
    ) -> None:
        """Log an update; hand its groups to the recorder; checkpoint and evaluate when it is time."""
        output, self._done = self.config.output, self._done + 1
        pools = {"rollout": rollouts.summary} | judges.summaries
        metrics = batch_metrics(batch, report) | self._pace(rollouts) | await judges.server_metrics()
        metrics |= self._busy.shares(pools)
        self._log.write(self._done, metrics, event="update", version=str(learner.version))
        with_grid = self._done % output.grid_every == 0 or self._done == 1
        await self._recorded()
        self._recording = self._recorder.record.remote(self._done, list(batch), report.advantages, with_grid)
        self._progress.update(self._done, self.config.loop.updates, metrics)
        if self._done % output.checkpoint_every == 0:
            await self._checkpoint(learner)
        every = self.config.evaluation.every
        if every and self._done % every == 0 and self._done < self.config.loop.updates:
            await self.evaluate(rollouts, judges, learner.version)

    async def finish(self, learner: LearnerGroup) -> None:
        """Export the policy, write the summary, say what came of it."""
        await self._checkpoint(learner)
        digest = await learner.export(self.folder / "lora")
        await self._recorded()
        summary: dict[str, Any] = {
            "updates": self._done,
            "final_version": asdict(learner.version),
            "exported_digest": digest,
            "training_minutes": (time.monotonic() - self._started) / 60,
            "ledger": self.collector.ledger.counts,
        }
        if len(self._evaluations) > 1:
            first, last = self._evaluations[0], self._evaluations[-1]
            gains = PairedGain.of_each_judge(first, last)
            by_judge = {name: gain.as_dict() for name, gain in gains.items()}
            summary["heldout"] = PairedGain.between(first, last).as_dict() | {"by_judge": by_judge}
            self._progress.gains(gains)
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        self._progress.say(f"everything is in {self.folder}; the LoRA for diffusers in {self.folder / 'lora'}")

    def _pace(self, rollouts: RolloutPool) -> dict[str, float]:
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        counts = {f"ledger/{name}": float(count) for name, count in self.collector.ledger.counts.items()}
        waits = {f"seconds/waiting_for_{what}": value for what, value in self.collector.waits.take().items()}
        shift = max(proof.canary_shift for proof in rollouts.proofs.values())
        return (
            {
                "seconds/update_total": seconds,
                "seconds/waiting_for_groups": sum(waits.values()),
                "policy/canary_shift": shift,
            }
            | waits
            | counts
        )

    async def _checkpoint(self, learner: LearnerGroup) -> None:
        folder, tag = self.folder / "checkpoints", f"update-{self._done:05d}"
        if (folder / tag).exists():
            return
        await learner.save(folder, tag)
        manifest = {"update": self._done, "version": asdict(learner.version), "ledger": self.collector.ledger.counts}
        (folder / tag / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        kept = sorted(path for path in folder.glob("update-*") if path.is_dir())
        for path in kept[: -self.config.output.checkpoints_kept]:
            shutil.rmtree(path)

    async def _recorded(self) -> None:
        """Wait for the recorder's last job, so that a slow disk holds the run up instead of filling the memory."""
        if self._recording is not None:
            await within(READ_DEADLINE_S, self._recording, "the run", "the recorder to write an update")

    def _create_folder(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "config.yaml").write_text(dump(self.config))
        record = provenance() | {
            "tasks_refused": {split: [asdict(refusal) for refusal in items] for split, items in self._refused.items()},
            "trains_on_benchmark": self.config.data.train.allow_benchmark,
        }
        (self.folder / "environment.json").write_text(json.dumps(record, indent=2) + "\n")
