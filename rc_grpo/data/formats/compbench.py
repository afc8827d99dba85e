"""CompBench, the benchmark: its folders as its own script lays them out, and its parquet files as the hub has them."""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rc_grpo.data.errors import DataError, reading
from rc_grpo.data.formats.json_text import BOM, parse, sniff
from rc_grpo.data.record import Record
from rc_grpo.data.text import identity, readable

logger = logging.getLogger(__name__)

FAMILIES = ("add", "remove", "replace")
"""The three families of local editing that the paper evaluates; its others have no mask or no single one."""

HUB_COLUMNS = {
    "task_id": "image_path",
    "kind": "task",
    "source": "input_image",
    "instruction": "instruction",
    "mask": "mask",
    "target": "edited_image",
    "caption": "caption",
}
"""Field -> column of the hub's files, whose split is called train and is the benchmark nevertheless."""


def is_hub_data(columns: Collection[str]) -> bool:
    """Whether a file with these columns is the hub's CompBench; a column added to them does not change what it is."""
    return set(HUB_COLUMNS.values()) <= set(columns)


def task_id(family: str, image_path: str) -> str:
    """Return ``family/image_path``, which is also where CompBench's script looks for the edited image."""
    return f"{family}/{image_path}"


def name_of(entry: Mapping[str, Any]) -> str | None:
    """Return an entry's image path, below each of its family's folders; the script takes either name."""
    return readable(entry.get("image_path")) or readable(entry.get("image_name"))


@dataclass(frozen=True)
class CompBench:
    """Reader of ``tasks/{add,remove,replace}/metadata.json`` and the image folders beside it.

    Attributes:
        root: the folder of the families.
        items: family, number in its metadata, and entry of every task.
        with_target: families that have a folder of true results.
    """

    root: Path
    items: tuple[tuple[str, int, Mapping[str, Any]], ...]
    with_target: frozenset[str]

    @classmethod
    def open(cls, path: Path) -> "CompBench":
        """Read the metadata of every family there is.

        Raises:
            DataError: ``path`` is not CompBench's folder, or a metadata file is not a list of objects.
        """
        with reading(path):
            root = path / "tasks" if (path / "tasks").is_dir() else path
            files = {family: root / family / "metadata.json" for family in FAMILIES}
            present = [family for family, file in files.items() if file.is_file()]
        if not present:
            raise DataError(
                f"{path} is not CompBench's folder: there is none of {', '.join(map(str, files.values()))}. "
                "Its own download_from_hf.py makes it"
            )
        if missing := [family for family in FAMILIES if family not in present]:
            logger.warning(
                "%s: no %s; the benchmark's overall figure wants all three families", root, ", ".join(missing)
            )
        items = [(family, i, item) for family in present for i, item in enumerate(_entries(files[family]))]
        targets = frozenset(family for family in present if (root / family / "edited_image").is_dir())
        return cls(root, tuple(items), targets)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Record]:
        return (self.record(i) for i in range(len(self.items)))

    def record(self, index: int) -> Record:
        """Return one task; its images are named, not read."""
        family, number, item = self.items[index]
        name = name_of(item)
        identified, fault = identity(item.get("image_path") or item.get("image_name"), f"entry-{number:06d}")
        return Record(
            place=f"{self.root / family / 'metadata.json'}, entry {number}",
            task_id=task_id(family, identified),
            values={
                "kind": family,
                "source": f"input_image/{name}",
                "instruction": item.get("instruction"),
                "mask": f"mask/{name}",
                "target": f"edited_image/{name}" if family in self.with_target else None,
                "caption": item.get("caption"),
            },
            folder=self.root / family,
            fault=fault or (None if name else "the entry has no image_path"),
            # Its script scales image and mask to 512x512 each for itself, so that their sizes need not agree.
            stretch_mask=True,
        )


def _entries(file: Path) -> list[Mapping[str, Any]]:
    sniff(file)
    with reading(file):
        data = file.read_bytes()
    try:
        entries = parse(data.removeprefix(BOM))
    except ValueError as error:
        raise DataError(f"{file} is {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{file} must hold a list of objects")
    return entries
