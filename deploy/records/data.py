"""Whether a run's data are what they were when it began: fingerprints in its folder, compared by whoever goes on."""

import logging
from collections.abc import Mapping, Sequence

from deploy.records.folder import DATA, RunFolder
from rc_grpo.config import ConfigError
from rc_grpo.data import TaskSet
from rc_grpo.data.fingerprint import Fingerprint, changed_parts, digest_of
from rc_grpo.messages import EditTask

logger = logging.getLogger(__name__)


def fingerprints(
    folder: RunFolder, train: TaskSet, heldout: Sequence[EditTask], *, resume: bool
) -> dict[str, Fingerprint]:
    """Return the fingerprints of a run's data by branch of the configuration; held-out tasks may be none.

    Args:
        folder: of the run.
        train: training tasks.
        heldout: held-out tasks.
        resume: refuse data that are not those which the run began with.

    Raises:
        ConfigError: see `require_unchanged`.
    """
    branches = {"train": train, "heldout": heldout}
    now = {name: Fingerprint.of(tasks) for name, tasks in branches.items() if isinstance(tasks, TaskSet)}
    if resume:
        require_unchanged(folder, now)
    return now


def keep(folder: RunFolder, now: Mapping[str, Fingerprint]) -> None:
    """Write the fingerprints of a run that begins or goes on."""
    folder.keep_data({name: fingerprint.as_json() for name, fingerprint in now.items()})


def require_unchanged(folder: RunFolder, now: Mapping[str, Fingerprint]) -> None:
    """Refuse to go on with a run on other data.

    A run without fingerprints, of an earlier version or because somebody removed them to go on deliberately, is not
    compared.

    Raises:
        ConfigError: which tasks were added, removed or changed, and the ways out.
    """
    kept = folder.data()
    if kept is None:
        logger.warning("%s has no %s: whether its data have changed is unknown", folder.path, DATA)
        return
    for name in now.keys() & kept.keys():
        if changes := Fingerprint.from_json(kept[name]).changes(now[name]):
            raise ConfigError(
                f"data.{name} has changed since {folder.path} began: {changes}. It would not be the same run: bring "
                f"the data back, or start a new run (learner.start_from goes on from a LoRA). To go on deliberately, "
                f"remove {folder.path / DATA}"
            )


def changes_of_task(folder: RunFolder, tasks: TaskSet, task_id: str) -> list[str]:
    """Return what of a training task is not what it was when the run began; nothing where that is not known."""
    kept = (folder.data() or {}).get("train")
    before = None if kept is None else Fingerprint.from_json(kept).tasks.get(task_id)
    record = tasks.record(task_id)
    return [] if before is None or record is None else changed_parts(before, digest_of(record))
