"""``rc-grpo inspect CONFIG --tasks N``: the tasks of a configuration as they are read, with nothing rolled out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from deploy.configs import load_config
from deploy.evaluating.tasks import InstructionCheck, check_needs
from deploy.records.contact_sheet import Row, contact_sheet, task_row
from deploy.records.folder import CONFIG
from rc_grpo.config import ConfigError, RunConfig
from rc_grpo.data import DataError, Refusal, TaskSet, survey
from rc_grpo.data.refusals import in_words
from rc_grpo.data.remarks import mask_remarks
from rc_grpo.editor.files import ModelNotFoundError
from rc_grpo.editor.loading import load_architecture
from rc_grpo.messages import EditTask

SHEET = Path("tasks.png")
Branch = Literal["train", "heldout"]


def write_preview(name: str, overrides: Sequence[str], branch: Branch, count: int, out: Path | None) -> str:
    """Draw the first tasks of a configuration, and return in words where the sheet is and what is wrong with the data.

    Args:
        name: a YAML file, a packaged config, or a run's folder.
        overrides: ``a.b=value``.
        branch: ``train`` for the tasks of ``data.train``, or ``heldout``.
        count: at most so many tasks.
        out: the picture; None is `SHEET` in the working directory.

    Raises:
        ConfigError: there is no such configuration, or it has no such data.
        rc_grpo.data.DataError: no task of it can be shown, with every reason.
    """
    folder = Path(name)
    config = load_config(str(folder / CONFIG) if (folder / CONFIG).is_file() else name, overrides)
    preview = Preview.of(config, branch, count)
    path = out or SHEET
    contact_sheet(preview.rows).save(path)
    return "\n".join([f"{preview.shown} of data.{branch}: {path}", *preview.remarks])


@dataclass(frozen=True)
class Preview:
    """What a person is shown of a data set.

    Attributes:
        shown: which tasks, in words.
        rows: of the sheet: source, outlined mask, target.
        remarks: what is wrong with the data, or worth a look.
    """

    shown: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, config: RunConfig, branch: Branch, count: int) -> "Preview":
        """Look at all of a configuration's tasks and draw the first; no model is loaded.

        Raises:
            ConfigError: it has no such data.
            rc_grpo.data.DataError: no task of it can be shown, with every reason.
        """
        source = config.data.train if branch == "train" else config.data.heldout
        if source is None:
            raise ConfigError(f"data.{branch} is not set; name the data that are to be looked at")
        objection, unchecked = _checks(config)
        tasks, faults = survey(source, "train" if branch == "train" else "evaluate", objection)
        opened, broken = _opened(tasks, count)
        refused = (*faults, *broken)
        told = _told(refused, len(tasks) + len(faults), str(source.path or source.format))
        if not opened:
            raise DataError("\n".join(told))
        remarks = [*told, *_doubts(config, branch, tasks, opened), *unchecked]
        return cls(
            f"the first {len(opened)} of {len(tasks)} usable tasks", tuple(map(task_row, opened)), tuple(remarks)
        )


def _checks(config: RunConfig) -> tuple[InstructionCheck | None, tuple[str, ...]]:
    """Return what checks instructions, or why nothing does: the data can be looked at where the editor is not."""
    try:
        return InstructionCheck(config.editor), ()
    except ModelNotFoundError as error:
        return None, (f"instructions and small masks are not checked against the editor: {error}",)


def _opened(tasks: Sequence[EditTask], count: int) -> tuple[list[EditTask], list[Refusal]]:
    """Return the first tasks whose images can be decoded, and those before them whose cannot."""
    broken: list[Refusal] = []

    def whole() -> Iterator[EditTask]:
        for index in range(len(tasks)):
            try:
                yield tasks[index]
            except DataError as error:
                broken.append(Refusal("", str(error), ""))

    return list(islice(whole(), count)), broken


def _told(refused: Sequence[Refusal], seen: int, where: str) -> list[str]:
    """Return every fault in words; one without a task id says itself where it is."""
    named = [refusal for refusal in refused if refusal.task_id]
    words = [in_words(named, seen, where)] if named else []
    return words + [refusal.reason for refusal in refused if not refusal.task_id]


def _doubts(config: RunConfig, branch: Branch, tasks: Sequence[EditTask], opened: Sequence[EditTask]) -> Iterator[str]:
    """Yield why a run would refuse usable tasks, and what is unusual about those that are shown."""
    source = config.data.train if branch == "train" else config.data.heldout
    assert source is not None
    if isinstance(tasks, TaskSet):
        try:
            check_needs(config.reward, source, tasks, f"data.{branch}")
        except ConfigError as error:
            yield f"a run would refuse them: {error}"
    try:
        token = load_architecture(config.editor).token
    except ModelNotFoundError:
        return
    for remark in mask_remarks(opened, config.editor.resolution, token):
        yield f"task {remark.task_id!r}: {remark.remark}"
