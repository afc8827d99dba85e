"""Where CompBench's script finds things: the samples of a folder or of the hub's files, and the edits of a model."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from rc_grpo.config import TaskSource
from rc_grpo.data.errors import DataError
from rc_grpo.data.formats.compbench import FAMILIES, HUB_COLUMNS, CompBench, name_of, task_id
from rc_grpo.data.formats.parquet import Parquet
from rc_grpo.data.formats.path import inside
from rc_grpo.data.picture import picture
from rc_grpo.data.text import readable
from rc_grpo.durable import write_whole
from rc_grpo.evaluation.compbench.frames import Originals
from rc_grpo.messages import EditTask

RESULTS = "editing_results"
"""Folder of all models' edits, beside ``tasks``, as the benchmark's own README has it."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Sample:
    """One sample of the benchmark, by name; its images are read when they are asked for.

    Attributes:
        task_id: ``family/name``.
        family: add, remove or replace.
        name: ``image_path`` of the metadata; None where the entry has none.
        caption: what the region shows afterwards.
        index: of the reader's record.
    """

    task_id: str
    family: str
    name: str | None
    caption: str | None
    index: int


@dataclass(frozen=True)
class Benchmark:
    """CompBench as somebody has it: the folders that its own download script makes, or the hub's parquet files.

    Attributes:
        path: as given.
        reader: of the records.
        samples: of the three families, in the order of the data.
    """

    path: Path
    reader: CompBench | Parquet
    samples: tuple[Sample, ...]

    @classmethod
    def open(cls, path: Path) -> "Benchmark":
        """List the samples; no image is read.

        Raises:
            DataError: there is no CompBench at ``path``, in either form.
        """
        files = path.suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet")))
        if not files:
            folders = CompBench.open(path)
            return cls(path, folders, tuple(_of_folders(folders)))
        parquet = Parquet.open(path, {})
        if not parquet.is_benchmark:
            raise DataError(f"{path} has not the hub's columns of CompBench: {', '.join(HUB_COLUMNS.values())}")
        return cls(path, parquet, tuple(_of_hub(parquet)))

    @property
    def source(self) -> TaskSource:
        """How `rc_grpo.data.load_tasks` reads the same tasks; those that cannot be edited are left out and listed."""
        return TaskSource(
            format="compbench" if isinstance(self.reader, CompBench) else "parquet",
            path=self.path,
            on_bad_task="skip",
        )

    @property
    def results(self) -> Path:
        """Where the edits of all models go if nothing else is said."""
        if isinstance(self.reader, CompBench):
            root = self.reader.root
            return (root.parent if root.name == "tasks" else root) / RESULTS
        return (self.path if self.path.is_dir() else self.path.parent) / RESULTS

    def originals(self, sample: Sample) -> Originals:
        """Read a sample's images as they are stored: the metrics want the mask's own levels.

        Raises:
            ValueError: source or mask is missing or unreadable, or a path leaves the folder.
        """
        record = self.reader.record(sample.index)
        if record.fault is not None:
            raise ValueError(record.fault)
        source, mask, target = (
            picture(record.values.get(role), record.folder, role) for role in ("source", "mask", "target")
        )
        if source is None or mask is None:
            raise ValueError(f"there is no {'source' if source is None else 'mask'}")
        # The script goes on without a true result and leaves LC-I out.
        there = target is not None and (isinstance(target.origin, bytes) or target.origin.is_file())
        return Originals(source.read(), mask.read(), target.read() if target is not None and there else None)

    def source_size(self, sample: Sample) -> tuple[int, int]:
        """Return the upright ``(height, width)`` of a sample's source, from its header alone.

        Raises:
            ValueError: it is missing or unreadable, or its path leaves the folder.
        """
        record = self.reader.record(sample.index)
        if record.fault is not None:
            raise ValueError(record.fault)
        source = picture(record.values.get("source"), record.folder, "source")
        if source is None:
            raise ValueError("there is no source")
        return source.size()


@dataclass(frozen=True)
class Edits:
    """Where the benchmark's script looks for a model's edits: ``RESULTS/MODEL/MODEL_local/FAMILY/IMAGE_PATH``.

    The script's README shows a shorter path; this is the one that its code opens.

    Attributes:
        root: folder of all models.
        model: name of this one.
    """

    root: Path
    model: str

    def __post_init__(self) -> None:
        if not _MODEL.fullmatch(self.model):
            raise ValueError(f"{self.model!r} cannot name a folder; use letters, digits, '.', '_' and '-' (--model)")

    @property
    def folder(self) -> Path:
        """The model's own folder."""
        return self.root / self.model

    def path(self, sample: Sample) -> Path:
        """Return where the edit of a sample is or belongs.

        Raises:
            ValueError: the sample has no name, or one that leaves the folder.
        """
        if sample.name is None:
            raise ValueError("the entry has no image_path")
        return inside(sample.name, self.folder / f"{self.model}_local" / sample.family)

    def any(self) -> bool:
        """Whether there is an edit already, whoever made it."""
        folder = self.folder / f"{self.model}_local"
        return any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))


def write_benchmark(folder: Path, tasks: Sequence[EditTask]) -> None:
    """Write tasks in CompBench's local layout, ``folder/tasks/FAMILY/...``; the metadata come last.

    Args:
        folder: to make.
        tasks: of the families add, remove and replace, each with its true target.

    Raises:
        FileExistsError: there is a benchmark already.
        ValueError: a task is of another family or has no target.
    """
    root = folder / "tasks"
    if any((root / family / "metadata.json").exists() for family in FAMILIES):
        raise FileExistsError(f"{root} holds a benchmark already; name another folder or remove it")
    entries: dict[str, list[dict[str, str]]] = {family: [] for family in FAMILIES}
    for task in tasks:
        if task.kind not in entries or task.target is None:
            raise ValueError(
                f"task {task.task_id!r} ({task.kind}) is not one of CompBench's: it wants a family, a target"
            )
        name = f"{task.task_id}.png"
        for part, data in (("input_image", task.source), ("mask", task.mask), ("edited_image", task.target)):
            path = root / task.kind / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        entries[task.kind].append({"image_path": name, "instruction": task.instruction, "caption": task.caption or ""})
    for family, listed in entries.items():
        if listed:
            write_whole(root / family / "metadata.json", json.dumps(listed, indent=1))


def _of_folders(reader: CompBench) -> Iterator[Sample]:
    for index, (family, number, entry) in enumerate(reader.items):
        name = name_of(entry)
        yield Sample(
            task_id(family, name or f"entry-{number:06d}"), family, name, readable(entry.get("caption")), index
        )


def _of_hub(reader: Parquet) -> Iterator[Sample]:
    index = 0
    columns = [HUB_COLUMNS[field] for field in ("kind", "task_id", "caption")]
    for file in reader.files:
        for row in pq.read_table(file, columns=columns).to_pylist():
            family, name, caption = (readable(row[column]) for column in columns)
            if family in FAMILIES and name:
                yield Sample(task_id(family, name), family, name, caption, index)
            index += 1
