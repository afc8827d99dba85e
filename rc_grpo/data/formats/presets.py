"""Public data sets by their columns, so that they are read as they come; what else is in them is left alone.

As their cards have them: osunlp/MagicBrush, TIGER-Lab/OmniEdit-Filtered-1.2M, sysuyy/ImgEdit (its ``Parquet/``, beside
the unpacked archives) and apple/pico-banana-400k (its JSON lines after ``map_openimage_url_to_local.py``).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rc_grpo.data.text import readable

Listed = Literal["first", "only"]
"""What is taken of a cell that is a list: its first text, of several that say the same; or the only image."""


@dataclass(frozen=True)
class Preset:
    """A layout of columns.

    Attributes:
        name: of the data set.
        marks: columns that tell it; a file has it if it has all of them.
        columns: field -> column; of those without which it is told, some may be missing.
        listed: fields whose cells are lists.
        kinds: the data set's words for the kinds that are ours.
    """

    name: str
    marks: frozenset[str]
    columns: Mapping[str, str]
    listed: Mapping[str, Listed] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def read(self, what: str, cell: Any) -> Any:
        """Return what a cell of a field holds, out of its list and in our words.

        Raises:
            ValueError: a list that is to hold one image holds several, or none.
        """
        if what == "kind":
            return self.kinds.get((readable(cell) or "").lower(), cell)
        how = self.listed.get(what)
        if how is None or not isinstance(cell, list | tuple):
            return cell
        if how == "first":
            return next((text for text in cell if readable(text)), None)
        if len(cell) != 1:
            raise ValueError(f"the {what} is a list of {len(cell)} images, where one is edited ({self.name})")
        return cell[0]


PRESETS = (
    Preset(
        "MagicBrush",
        frozenset({"img_id", "turn_index", "source_img", "mask_img", "instruction", "target_img"}),
        {"source": "source_img", "mask": "mask_img", "target": "target_img", "instruction": "instruction"},
    ),
    Preset(
        "OmniEdit",
        frozenset({"omni_edit_id", "src_img", "edited_img", "edited_prompt_list"}),
        {
            "task_id": "omni_edit_id",
            "kind": "task",
            "source": "src_img",
            "target": "edited_img",
            "instruction": "edited_prompt_list",
        },
        {"instruction": "first"},
        {"addition": "add", "removal": "remove", "swap": "replace"},
    ),
    Preset(
        "ImgEdit",
        frozenset({"input_images", "output_images", "prompt"}),
        {"source": "input_images", "target": "output_images", "instruction": "prompt"},
        {"source": "only", "target": "only"},
    ),
    Preset(
        "Pico-Banana",
        frozenset({"open_image_input_url", "output_image", "text", "local_input_image"}),
        {"source": "local_input_image", "target": "output_image", "instruction": "text", "kind": "edit_type"},
        kinds={
            "remove an existing object": "remove",
            "add a new object to the scene": "add",
            "replace one object category with another": "replace",
        },
    ),
)

HINTS = (
    (
        frozenset({"open_image_input_url", "output_image", "text"}),
        "These are Pico-Banana's lines before its map_openimage_url_to_local.py, which adds local_input_image; run it, "
        "as nothing is downloaded here",
    ),
    (
        frozenset({"data"}),
        "If these are ImgEdit's files of several turns, write a row a turn: only single turns are read",
    ),
)
"""Columns of what cannot be read as it comes, and what to do about it."""


def told_by(columns: Collection[str]) -> list[Preset]:
    """Return the presets whose marks are all among a file's columns."""
    present = set(columns)
    return [preset for preset in PRESETS if preset.marks <= present]


def hint(columns: Collection[str]) -> str:
    """Return what to do about a file of a known layout that cannot be read as it comes; empty for any other."""
    return next((f". {said}" for marks, said in HINTS if marks <= set(columns)), "")
