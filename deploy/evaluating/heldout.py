"""Held-out evaluation: the policy's unperturbed edits of tasks it never trained on, scored by the run's own judges."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deploy.evaluating.tasks import heldout_tasks
from deploy.records.folder import update_name
from rc_grpo.config import EvaluationConfig, RunConfig
from rc_grpo.evaluation.gains import HeldOut, PairedGain
from rc_grpo.messages import EditTask, RolloutSeeds, ScoredGroup
from rc_grpo.seeds import derive
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool


class HeldOutExam:
    """A run's held-out evaluations: when one is due, what came of each, and what training gained.

    Args:
        config: of the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self.tasks = heldout_tasks(config)
        self.evaluations: dict[int, HeldOut] = {}
        """By the updates made before each."""
        self._config = config

    def due(self, done: int) -> bool:
        """Tell whether the policy after so many updates is to be evaluated and was not yet.

        A run that learns from a log has no rollout workers and evaluates nothing.
        """
        if not self.tasks or done in self.evaluations or self._config.loop.feed is not None:
            return False
        every = self._config.evaluation.every
        return done in (0, self._config.loop.updates) or (every is not None and done % every == 0)

    async def take(
        self, done: int, rollouts: RolloutPool, judges: JudgePanel, advance: Callable[[], object]
    ) -> HeldOut:
        """Score the held-out tasks under the rollout workers' newest version, and remember it."""
        taken, _ = await evaluate(self.tasks, rollouts, judges, self._config.evaluation, self._config.seed, advance)
        self.evaluations[done] = taken
        return taken

    @property
    def task_ids(self) -> list[str]:
        """Of the held-out tasks, in the order of an evaluation's arrays."""
        return [task.task_id for task in self.tasks]

    def go_back(self, made: Mapping[int, str]) -> None:
        """Remember these evaluations alone, as `HeldOut.as_json` gave them, by update.

        Raises:
            ValueError: one is none; says which.
        """
        found = {}
        for update, text in made.items():
            try:
                found[update] = HeldOut.from_json(text)
            except ValueError as error:
                raise ValueError(
                    f"evaluations/{update_name(update)}.json: {error}; bring it back from a copy"
                ) from error
        self.evaluations = found

    def gains(self) -> tuple[PairedGain, dict[str, PairedGain]] | None:
        """Return the gain from the first evaluation to the last, and that of each judge; None without two."""
        if len(self.evaluations) < 2:
            return None
        first, last = (self.evaluations[choose(self.evaluations)] for choose in (min, max))
        return PairedGain.between(first, last), PairedGain.of_each_judge(first, last)


async def evaluate(
    tasks: Sequence[EditTask],
    rollouts: RolloutPool,
    judges: JudgePanel,
    config: EvaluationConfig,
    seed: int,
    advance: Callable[[], object],
) -> tuple[HeldOut, list[ScoredGroup]]:
    """Edit and score every task once, from a noise that depends on the run's seed and the task alone.

    Args:
        tasks: held-out tasks.
        rollouts: holding the version to evaluate.
        judges: who scores.
        config: number of steps, and guidance.
        seed: of the run.
        advance: called after each task, for a progress display.
    """

    async def one(task: EditTask) -> ScoredGroup:
        seeds = RolloutSeeds(derive(seed, "heldout", task.task_id))
        rollout = await rollouts.rollout(task, seeds, steps=config.steps, guidance=config.guidance, keep_states=False)
        scores = await judges.score(task, rollout.group)
        advance()
        return ScoredGroup(task, rollout.receipt, scores, rollout.group, rollout.conditions)

    scored = await asyncio.gather(*(one(task) for task in tasks))
    names = sorted({name for item in scored for name in item.scores.subscores})
    failures = [reason for item in scored for reason in item.scores.failures]
    result = HeldOut(
        version=scored[0].receipt.policy,
        reward=np.array([item.scores.task_reward[0] for item in scored]),
        rewards={
            name: np.array([item.scores.rewards[name][0] for item in scored]) for name in scored[0].scores.rewards
        },
        background_drift=np.array([item.receipt.background_drift[0] for item in scored]),
        subscores={name: np.array([item.scores.subscores.get(name, [np.nan])[0] for item in scored]) for name in names},
        last_failure=failures[-1] if failures else None,
    )
    return result, list(scored)
