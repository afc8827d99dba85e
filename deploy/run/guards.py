"""Guards: what ends a run that goes wrong, with its cause, while there is something left to save."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deploy.batches.lessons import Lessons
from deploy.records.best import LORA_BEST
from deploy.records.reading import RunRecord, read_run
from deploy.stopping import GuardError, RunawayError
from rc_grpo.config import RunConfig
from rc_grpo.evaluation.alarm import Alarm, HeldOutSeries, Training, find_alarms, overpraise
from rc_grpo.evaluation.gains import HeldOut

_BOUNDED = {"max_abs_log_ratio": "log_ratio", "kl": "kl"}
"""Last part of ``update/STEP/...`` -> the guard that bounds it."""


class Guards:
    """Looks at every update and every held-out evaluation of a run.

    Args:
        config: of the run, with the bounds.
        lessons: what the groups were worth since something was last learned.
        folder: of the run.
    """

    def __init__(self, config: RunConfig, lessons: Lessons, folder: Path) -> None:
        self._config = config.guards
        self._judge = config.evaluation.measured_by
        self._lessons = lessons
        self._folder = folder
        self._barren = 0

    def after_update(self, done: int, skipped: Sequence[str | None], metrics: Mapping[str, float]) -> None:
        """Look at an update, before a checkpoint has it.

        Args:
            done: updates made, this one included.
            skipped: for each group of the batch, why it was left out, or None.
            metrics: of the update.

        Raises:
            GuardError: nothing was learned in so many updates.
            RunawayError: the policy moved beyond a bound.
        """
        if None in skipped:
            self._barren = 0
            self._lessons.forget()
        else:
            self._barren += 1
        if 0 < self._config.barren_updates <= self._barren:
            raise GuardError(
                f"nothing could be learned in the {self._barren} updates up to {done}: {self._lessons.in_words()}. "
                f"Mend the judge or the tasks; guards.barren_updates (now {self._config.barren_updates}) set to 0 goes "
                "on all the same"
            )
        for name, value in metrics.items():
            step, _, part = name.rpartition("/")
            guard = _BOUNDED.get(part) if step.startswith("update/") else None
            bound = None if guard is None else getattr(self._config, guard)
            # Written so that NaN is beyond it.
            if bound is not None and not abs(value) <= bound:
                raise RunawayError(
                    f"{name} is {value:.4g} in update {done}, beyond guards.{guard} = {bound:g}: the policy has moved "
                    "further than ratios tell. Lower learner.learning_rate or learner.steps_per_rollout, or raise the "
                    "bound; the update is in no checkpoint"
                )

    def at_the_end(self) -> None:
        """Look back, when all updates are made.

        Raises:
            GuardError: not one group of the whole run could be learned from.
        """
        if self._config.barren_updates and (read_run(self._folder, "").metrics["groups_skipped/share"] == 1).all():
            raise GuardError(
                f"nothing could be learned in the whole run: {self._lessons.in_words()}. "
                "Mend the judge or the tasks; with guards.barren_updates=0 such a run ends well"
            )

    def after_evaluation(self, heldout: HeldOut, updates_left: Sequence[int]) -> None:
        """Look at the held-out rewards so far beside the training reward, while there are updates left to be saved.

        Args:
            heldout: the last evaluation.
            updates_left: to be made after it.

        Raises:
            GuardError: not one task could be scored; or the last so many evaluations see the held-out reward fallen
                while the training reward has risen, or still praises the same edits.
        """
        if self._config.barren_updates and np.isnan(heldout.reward).all():
            raise GuardError(
                f"not one of {len(heldout.reward)} held-out tasks could be scored: the judge fails, or the tasks lack "
                f"what it needs{_in_brackets(heldout.last_failure)}; guards.barren_updates=0 goes on all the same"
            )
        needed = self._config.falling_evaluations
        if not needed or not updates_left or updates_left[0] == 0:
            return
        run = read_run(self._folder, "")
        measure = f"reward/{self._judge}"
        if self._judge is None or measure not in run.evaluations.measures:
            measure = "reward"  # Of a single judge, whose reward it is.
        alarm = hacked(run, measure, needed)
        if alarm is not None:
            of = "" if measure == "reward" else f" by {self._judge}"
            raise GuardError(
                f"the held-out reward{of} fell from {alarm.measure_then:.4f} after update {alarm.since} to "
                f"{alarm.measure_seen:.4f} after update {alarm.seen}, and {needed} evaluations in a row saw it, while "
                f"the training reward went from {alarm.reward_then:.4f} to {alarm.reward_seen:.4f}: the policy learns "
                f"to please the judge and not the task. {LORA_BEST}/ has the trained version that did best; "
                "guards.falling_evaluations=0 trains on all the same"
            )


def _in_brackets(said: str | None) -> str:
    return "" if said is None else f" (it says: {said})"


def hacked(run: RunRecord, measure: str, needed: int, evaluations: int | None = None) -> Alarm | None:
    """Return the alarm of a held-out reward that so many evaluations in a row see, the last of them the last.

    Args:
        run: of which this is asked.
        measure: the held-out reward.
        needed: ``guards.falling_evaluations``.
        evaluations: that there were when it is asked; by default all.
    """
    last = len(run.evaluations.updates) if evaluations is None else evaluations
    alarms = [_falling(run, measure, last - back) for back in range(needed)]
    return None if None in alarms else alarms[0]


def _falling(run: RunRecord, measure: str, evaluations: int) -> Alarm | None:
    """Return the alarm of a held-out reward that lasts at the last of the first so many evaluations."""
    updates = run.evaluations.updates[: max(0, evaluations)]
    if len(updates) < 2:
        return None
    made = run.updates <= updates[-1]
    measures = {name: values[: len(updates)] for name, values in run.evaluations.measures.items()}
    found = find_alarms(
        {"reward": Training(run.updates[made], run.metrics["reward/task_mean"][made])},
        [HeldOutSeries.of_tasks(measure, updates, measures[measure])],
        overpraise("reward", updates, measures),
    )
    return next((alarm for alarm in found if alarm.lasts), None)
