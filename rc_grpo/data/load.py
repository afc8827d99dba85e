"""The one way in: a task source of the config becomes a set of tasks."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rc_grpo.config import TaskSource
from rc_grpo.data.errors import DataError, printable
from rc_grpo.data.formats.compbench import CompBench
from rc_grpo.data.formats.jsonl import JsonLines
from rc_grpo.data.formats.parquet import Parquet
from rc_grpo.data.record import Reader
from rc_grpo.data.refusals import Refusal
from rc_grpo.data.tasks import Objection, TaskSet, checked, examine
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld, phrases

logger = logging.getLogger(__name__)

Purpose = Literal["train", "evaluate"]
_POCKET_SIZES = {"train": 2000, "heldout": 300}


def load_tasks(source: TaskSource, purpose: Purpose = "train", objection: Objection | None = None) -> TaskSet:
    """Return the tasks of a source, every one of them checked.

    Masks are decoded here, images when a task is asked for: bad data fail before a GPU is touched, and a large set
    costs no memory.

    Args:
        source: where from, and how to read it.
        purpose: what for. CompBench is for evaluation; training on it wants ``allow_benchmark``.
        objection: returns why the editor cannot take a task, which makes it unusable, or None.

    Raises:
        DataError: the data set is missing, empty, not as described or holds an unusable task (see ``on_bad_task``), or
            it is the benchmark and meant for training.
    """
    if source.format == "pocket":
        _no_columns(source)
        if reason := _of_pocket(objection):
            raise DataError(reason)
        world = PocketWorld(source.split, source.limit or _POCKET_SIZES[source.split])
        rows = range(len(world))
        return TaskSet(
            world.__getitem__,
            rows,
            {world.task_id(row): row for row in rows},
            origin=f"the pocket world ({source.split}, {len(world)} tasks)",
        )
    assert source.path is not None
    return checked(open_reader(source, source.path, purpose), source, printable(str(source.path)), objection)


def survey(
    source: TaskSource, purpose: Purpose = "train", objection: Objection | None = None
) -> tuple[Sequence[EditTask], tuple[Refusal, ...]]:
    """Return the usable tasks of a data set, be there none, and every fault of it, without raising.

    ``on_bad_task`` makes no difference. A fault of the whole has the path as its place and no task id.

    Args:
        source: where from, and how to read it.
        purpose: as of `load_tasks`.
        objection: likewise.

    Returns:
        The tasks, and why others are none: unusable tasks, repeated ids, or why the data cannot be read at all.
    """
    where = printable(str(source.path or source.format))
    try:
        if source.path is None:
            return load_tasks(source, purpose, objection), ()
        reader = open_reader(source, source.path, purpose)
        found = examine(reader, source, where, objection)
    except DataError as error:
        return (), (Refusal("", str(error), where),)
    nothing = () if found.seen else (Refusal("", f"{where} holds no task", where),)
    return found.tasks(reader, source), (*found.refused, *found.repeated, *nothing)


def faults(source: TaskSource, purpose: Purpose = "train", objection: Objection | None = None) -> tuple[Refusal, ...]:
    """Return every fault of a data set without raising; see `survey`."""
    return survey(source, purpose, objection)[1]


def _of_pocket(objection: Objection | None) -> str | None:
    if objection is None:
        return None
    reasons = (objection(phrase, 1) for phrase in dict.fromkeys(phrases()))
    return next((f"the pocket world's instructions: {reason}" for reason in reasons if reason), None)


def open_reader(source: TaskSource, path: Path, purpose: Purpose) -> Reader:
    """Open the files of a source that has any, and look at nothing but how they are laid out.

    Raises:
        DataError: they are missing or not as described, or are the benchmark and meant for training.
    """
    match source.format:
        case "jsonl":
            return JsonLines.open(path, source.columns)
        case "compbench":
            _no_columns(source)
            _allow_benchmark(source, purpose)
            return CompBench.open(path)
    parquet = Parquet.open(path, source.columns)
    if parquet.has_benchmark:
        _allow_benchmark(source, purpose)
    return parquet


def _no_columns(source: TaskSource) -> None:
    if source.columns:
        raise DataError(
            f"format {source.format!r} has fields of its own; remove `columns` ({', '.join(source.columns)})"
        )


def _allow_benchmark(source: TaskSource, purpose: Purpose) -> None:
    if purpose == "evaluate":
        return
    if not source.allow_benchmark:
        raise DataError(
            f"{source.path} is CompBench, the benchmark (the hub calls its split `train`, which it is not); "
            "a model trained on it has no score on it. Train on other data, or set allow_benchmark: true, "
            "which the run's metadata keep"
        )
    logger.warning("training on CompBench, the benchmark, as allow_benchmark says: its score will mean nothing")
