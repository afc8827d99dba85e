"""From a configuration to the services of a run."""

import asyncio

from deploy.batches.collector import Collector
from deploy.batches.feed import Feed
from deploy.batches.ledger import Ledger
from deploy.batches.lessons import Lessons
from deploy.batches.source import Source
from deploy.cluster import namespace
from deploy.run.still import StillLearner
from learner.group import LearnerGroup
from learner.protocol import Learner
from learner.work import RunShape
from rc_grpo.config import RunConfig
from rc_grpo.data.tasks import TaskSet
from rc_grpo.editor.weights.lora_hub import on_the_hub
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool


def make_services(config: RunConfig) -> tuple[RolloutPool, JudgePanel, Learner]:
    """Return the run's pools and its learner, none of them started."""
    home = namespace(config.name)
    rollouts = RolloutPool(config.editor, config.rollout, config.seed, home)
    judges = JudgePanel(config.reward, home)
    if not config.loop.learn:
        return rollouts, judges, StillLearner(rollouts, config.reward.weights, config.objective)
    shape = RunShape(
        config.seed,
        config.rollout.solver,
        config.rollout.steps,
        config.loop.updates,
        config.loop.max_staleness,
        config.reward.weights,
        config.rollout.sde,
    )
    learner = config.learner
    if learner.start_from is not None and on_the_hub(learner.start_from) is None:
        # The ranks' working folder is not the driver's.
        learner = learner.model_copy(update={"start_from": learner.start_from.resolve()})
    return rollouts, judges, LearnerGroup(config.editor, learner, config.objective, shape, home)


def make_ledger(config: RunConfig, tasks: TaskSet) -> Ledger:
    """Return the run's plan. A run that only fills a log leaves every group as it comes."""
    loop = config.loop
    refills = loop.refills if loop.learn else 0
    return Ledger(len(tasks), loop.updates, loop.groups_per_update, loop.max_staleness, config.seed, refills)


def make_source(config: RunConfig, tasks: TaskSet, ledger: Ledger, lessons: Lessons, stop: asyncio.Event) -> Source:
    """Return where the run's batches come from: rollouts, or the log of an earlier run."""
    loop = config.loop
    if loop.feed is not None:
        return Feed(loop.feed, tasks, loop.max_staleness, config.output.record_deadline_s, lessons, stop)
    rollout = config.rollout
    pool = None if rollout.explore is None else rollout.candidates
    return Collector(ledger, tasks, rollout.group_size, rollout.attempts, lessons, stop, pool)
