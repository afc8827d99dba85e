"""The tasks of a run, checked against what its editor can read and its judges need before anything is started."""

import logging
from collections.abc import Sequence

from rc_grpo.config import ConfigError, EditorConfig, RewardConfig, RunConfig, TaskSource
from rc_grpo.config.reward import JUDGES
from rc_grpo.data import TaskSet, load_tasks
from rc_grpo.editor.loading import load_text_counter
from rc_grpo.editor.registry import find
from rc_grpo.messages import EditTask

logger = logging.getLogger(__name__)

_NAMED = 5
"""Tasks that a message names of many."""


class InstructionCheck:
    """Returns why an editor cannot take an instruction or so many source images, or None; loads tokenizers alone.

    Args:
        editor: which one.

    Raises:
        rc_grpo.editor.files.ModelNotFoundError: its tokenizers are not there.
    """

    def __init__(self, editor: EditorConfig) -> None:
        self._editor, self._most = editor, find(editor).sources
        self._count = load_text_counter(editor)
        self._told = False

    def __call__(self, instruction: str, sources: int = 1) -> str | None:
        """Check an instruction. The first that is read in part by one of the encoders is warned about."""
        if sources > self._editor.sources:
            return self._too_many(sources)
        length = self._count(instruction)
        if length.cut is not None and length.objection is None and not self._told:
            self._told = True
            logger.warning(
                "an instruction is long: %s (%r...); further ones are not told", length.cut, instruction[:60]
            )
        return length.objection

    def _too_many(self, sources: int) -> str:
        has = f"the task has {sources} source images with its references, and "
        if sources > self._most:
            return f"{has}{self._editor.model} is of a family that takes {self._most} at most"
        return f"{has}editor.sources is {self._editor.sources}; set editor.sources={sources}"


def training_tasks(config: RunConfig) -> TaskSet:
    """Return the tasks that a run trains on.

    Raises:
        rc_grpo.data.DataError: a task is unusable (see `rc_grpo.data.load_tasks`), or its instruction too long.
        ConfigError: a task lacks what a judge needs.
    """
    tasks = load_tasks(config.data.train, objection=InstructionCheck(config.editor))
    # Who learns from a log has its scores already.
    if config.loop.feed is None:
        check_needs(config.reward, config.data.train, tasks, "data.train")
    return tasks


def heldout_tasks(config: RunConfig) -> Sequence[EditTask]:
    """Return the tasks that a configuration evaluates on; none where it evaluates nothing.

    Raises:
        rc_grpo.data.DataError: as of `training_tasks`.
        ConfigError: likewise.
    """
    if config.data.heldout is None or not config.evaluation.tasks:
        return ()
    found = load_tasks(config.data.heldout, "evaluate", InstructionCheck(config.editor))
    tasks = found[: config.evaluation.tasks]
    if config.loop.feed is None:
        check_needs(config.reward, config.data.heldout, tasks, "data.heldout")
    return tasks


def check_needs(reward: RewardConfig, source: TaskSource, tasks: TaskSet, branch: str) -> None:
    """Check that each task has what each judge needs; no image is read.

    Args:
        reward: the judges.
        source: where the tasks are from.
        tasks: as `rc_grpo.data.load_tasks` gave them.
        branch: of the configuration that names the source, such as ``data.train``.

    Raises:
        ConfigError: every score of some task would fail.
    """
    for name, judge in reward.judges.items():
        for need in judge.needs:
            if not (lacking := tasks.lacking(need)):
                continue
            named = ", ".join(map(repr, lacking[:_NAMED])) + (", ..." if len(lacking) > _NAMED else "")
            free = " or ".join(kind for kind, config in JUDGES.items() if not config.needs)
            raise ConfigError(
                f"judge {name!r} ({judge.kind}) needs the {need} of every task, and {len(lacking)} of {len(tasks)} in "
                f"{source.path or source.format} have none ({named}). Score with a judge that needs none "
                f"(reward.judges, kind: {free}), or name the column that has it ({branch}.columns: "
                f"{{{need}: COLUMN}})"
            )
