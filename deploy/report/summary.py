"""The page's head: what an arm is, what became of it, and whether its reward was hacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.records.reading import RunRecord
from deploy.report.arms import Arm, Difference, from_packaged
from deploy.report.heldout import Change, watch
from rc_grpo.evaluation.alarm import Alarm


@dataclass(frozen=True)
class Watched:
    """What the alarm says of a run.

    Attributes:
        run: its name.
        evaluations: how many there were.
        measures: how many were compared task by task.
        alarms: the earliest first.
    """

    run: str
    evaluations: int
    measures: int
    alarms: tuple[Alarm, ...]

    @property
    def word(self) -> str:
        """``alarm``, ``recovered`` (an alarm that is over), ``quiet``, or ``unwatched``."""
        if self.alarms:
            return "alarm" if any(alarm.lasts for alarm in self.alarms) else "recovered"
        return "quiet" if self.evaluations > 1 else "unwatched"


@dataclass(frozen=True)
class Summary:
    """An arm in the page's head.

    Attributes:
        arm: itself.
        settings: key and value of what it does differently: from the other arms, or from ``base``.
        base: the packaged config that the only arm is compared with; empty where there are several.
        headline: what became of the held-out reward, if that was measured.
        watched: its runs.
    """

    arm: Arm
    settings: tuple[tuple[str, str], ...]
    base: str
    headline: Change | None
    watched: tuple[Watched, ...]


def summaries(
    runs: Sequence[RunRecord],
    arms: Sequence[Arm],
    differing: Sequence[Difference],
    held_out: Mapping[str, Sequence[Change]],
) -> list[Summary]:
    """Return a summary an arm.

    Args:
        runs: in the order of ``differing``'s values.
        arms: of those runs.
        differing: keys in which the runs differ.
        held_out: measure -> what became of it in the arms.
    """
    found = []
    for index, arm in enumerate(arms):
        base = ""
        settings = [(row.key, row.values[runs.index(arm.runs[0])]) for row in differing if row.key != "seed"]
        if len(arms) == 1:
            base, changed = from_packaged(arm.runs[0])
            settings = [(row.key, row.values[1]) for row in changed if row.key != "seed"]
        headline = next((change for change in held_out.get("reward", ()) if change.arm == index), None)
        found.append(Summary(arm, tuple(settings), base, headline, tuple(map(watched, arm.runs))))
    return found


def watched(run: RunRecord) -> Watched:
    """Return what the alarm says of a run so far."""
    evaluations = run.evaluations
    return Watched(run.name, len(evaluations.updates), len(evaluations.measures), tuple(watch(run)))
