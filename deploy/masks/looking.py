"""What a person is shown of masks that were made: figures in words, a sheet, the refused tasks, files to paint in."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.masks.parts import Parts
from deploy.records.contact_sheet import Row, contact_sheet, task_row
from rc_grpo.durable import write_whole
from rc_grpo.masks.drawn import name_of
from rc_grpo.masks.making import RULES
from rc_grpo.messages import EditTask

SHEET, REFUSED, SUMMARY = "sheet.png", "refused.jsonl", "masks.json"
OVERLAP = "iou_with_own"
"""In a mask's detail: its overlap with the mask that the task had."""

_SHOWN = 24
"""Tasks of the sheet, evenly through the data."""

_EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_BAR = 40


@dataclass(frozen=True)
class Summary:
    """What came out.

    Attributes:
        folder: of the new data set.
        areas: shares of the image, by method.
        refused: tasks without a mask, by rule.
        overlaps: of masks made anew with those that the tasks had.
        png: what became of files of masks, if there are any.
    """

    folder: Path
    areas: dict[str, list[float]]
    refused: dict[str, int]
    overlaps: tuple[float, ...]
    png: str = ""

    @property
    def made(self) -> int:
        """How many tasks have masks."""
        return sum(map(len, self.areas.values()))

    @property
    def in_words(self) -> str:
        """Return it for a terminal."""
        lines = [f"{self.made} tasks with masks in {self.folder}" + "".join(self._by_method())]
        lines += self._histogram()
        if self.overlaps:
            low, middle = np.quantile(self.overlaps, (0.1, 0.5))
            lines.append(f"overlap (IoU) with the tasks' own masks: median {middle:.2f}, worst tenth below {low:.2f}")
        if count := sum(self.refused.values()):
            lines.append(f"{count} tasks without, by rule ({self.folder / REFUSED} lists them):")
            lines += [f"  {number:6d}  {rule}: {RULES[rule]}" for rule, number in self.refused.items()]
        if self.made:
            lines.append(f"look at them: {self.folder / SHEET}")
        return "\n".join([*lines, self.png] if self.png else lines)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        every = [area for areas in self.areas.values() for area in areas]
        quantiles = np.quantile(every, (0, 0.1, 0.5, 0.9, 1)).round(6).tolist() if every else []
        return {
            "masks": {method: len(areas) for method, areas in self.areas.items()},
            "refused": self.refused,
            "area_quantiles": dict(zip(("0", "0.1", "0.5", "0.9", "1"), quantiles, strict=False)),
            "median_iou_with_own": round(float(np.median(self.overlaps)), 4) if self.overlaps else None,
        }

    def _by_method(self) -> Iterator[str]:
        for method, areas in self.areas.items():
            yield f"; {len(areas)} {method}, of {np.median(areas):.1%} of the image in the middle"

    def _histogram(self) -> list[str]:
        every = [area for areas in self.areas.values() for area in areas]
        counts, _ = np.histogram(every, _EDGES)
        most = max(1, int(counts.max()))
        return [
            f"  {low:4.0%} to {high:4.0%} {count:6d} {'#' * round(_BAR * count / most)}"
            for low, high, count in zip(_EDGES, _EDGES[1:], counts.tolist(), strict=False)
            if count
        ]


def write_summary(folder: Path, parts: Parts) -> Summary:
    """Write the figures and the refused tasks beside the data, and return the figures."""
    refused = parts.refused
    counts = Counter(item.rule for item in refused)
    details = (json.loads(row["mask_detail"]) for row in parts.rows(("mask_detail",)))
    overlaps = tuple(detail[OVERLAP] for detail in details if OVERLAP in detail)
    ordered = {rule: counts[rule] for rule in RULES if counts[rule]}
    summary = Summary(folder, parts.areas(), ordered, overlaps)
    lines = (
        json.dumps({"task_id": item.task_id, "rule": item.rule, "reason": item.reason, "place": item.place})
        for item in refused
    )
    write_whole(folder / REFUSED, "".join(f"{line}\n" for line in lines))
    write_whole(folder / SUMMARY, json.dumps({"request": parts.request, **summary.as_json()}, indent=2) + "\n")
    return summary


def write_sheet(folder: Path, parts: Parts) -> None:
    """Draw some tasks evenly through the data: source, outlined mask, target."""
    count = len(parts.ids())
    chosen = set(np.unique(np.linspace(0, count - 1, min(_SHOWN, count)).round().astype(int)).tolist())
    columns = ("task_id", "instruction", "source", "mask", "target", "references", "mask_by", "mask_area")
    rows = [_drawn(row) for number, row in enumerate(parts.rows(columns)) if number in chosen]
    contact_sheet(rows).save(folder / SHEET)


def write_pngs(folder: Path, parts: Parts, summary: Summary) -> Summary:
    """Write each mask as a file; one that is there is left as it is, as somebody may have painted in it."""
    folder.mkdir(parents=True, exist_ok=True)
    written = kept = 0
    for row in parts.rows(("task_id", "mask")):
        path = folder / name_of(row["task_id"])
        if path.exists():
            kept += 1
            continue
        write_whole(path, row["mask"]["bytes"])
        written += 1
    said = (
        f"{written} masks written to {folder} to paint in, white where to edit; a file that is removed refuses its task"
    )
    return replace(summary, png=said + (f"; {kept} were there and are left as they are" if kept else ""))


def _drawn(row: dict[str, Any]) -> Row:
    images = {name: row[name]["bytes"] if row[name] else None for name in ("source", "mask", "target")}
    task = EditTask(row["task_id"], "other", images["source"], row["instruction"], images["mask"], images["target"])
    drawn = task_row(replace(task, references=tuple(image["bytes"] for image in row["references"])))
    return replace(drawn, title=f"{drawn.title} ({row['mask_by']}, {row['mask_area']:.1%})")
