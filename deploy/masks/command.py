"""``rc-grpo masks``: from a data set without masks to one with them, row by row, and a look at what came out."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.masks.looking import OVERLAP, Summary, write_pngs, write_sheet, write_summary
from deploy.masks.parts import BYTES_AT_MOST, ROWS_AT_MOST, Masked, Parts
from deploy.masks.request import Request
from rc_grpo.config import ConfigError
from rc_grpo.data.errors import printable
from rc_grpo.data.record import Record
from rc_grpo.editor.geometry import binary_mask
from rc_grpo.images import encode_png
from rc_grpo.masks.making import Example, Made, MaskMaker, NoMaskError
from rc_grpo.masks.rows import Refused, Rows

_CHUNK = 32
GIVEN = "given"
"""The method of a mask that the data set had."""


def make_masks(request: Request, rows: Rows, maker: MaskMaker, console: Console) -> Summary:
    """Make the masks of a data set, or go on where it was stopped.

    Args:
        request: which `Request.check` has passed.
        rows: the tasks.
        maker: of masks.
        console: progress goes here.

    Returns:
        What came out; the sheet, the list of refused tasks and the summary lie beside the data.

    Raises:
        ConfigError: the folder holds something else, or no task got a mask.
        rc_grpo.data.DataError: the data can be read no further.
    """
    parts = Parts(request.out, request.as_json(rows, maker), is_benchmark=rows.is_benchmark)
    _make(parts, rows, _Judge(request, rows, maker), console)
    summary = write_summary(request.out, parts)
    if not summary.made:
        raise ConfigError(f"no task of {rows.source.path or rows.source.format} got a mask:\n{summary.in_words}")
    write_sheet(request.out, parts)
    if request.png is not None and request.by != "png":
        summary = write_pngs(request.png, parts, summary)
    return summary


@dataclass(frozen=True)
class _Judge:
    """From a record to its row, or to why it has none."""

    request: Request
    rows: Rows
    maker: MaskMaker

    def __call__(self, record: Record) -> Masked | Refused:
        try:
            example = self.rows.example(record)
            if example.mask is not None and not (self.request.renew or self.request.by == "png"):
                return _masked(example, GIVEN, Made(binary_mask(example.mask)), example.mask)
            made = self._within(self.maker(example))
        except NoMaskError as error:
            return Refused(record.task_id, printable(record.place), error.rule, printable(str(error)))
        if example.mask is not None:
            overlap = round(_iou(made.inside, binary_mask(example.mask)), 4)
            made = Made(made.inside, {**made.detail, OVERLAP: overlap})
        drawn = encode_png(np.where(made.inside, np.uint8(255), np.uint8(0)))
        return _masked(example, self.maker.method, made, drawn)

    def _within(self, made: Made) -> Made:
        area = float(made.inside.mean())
        if area < self.request.min_area or not made.inside.any():
            raise NoMaskError("too small", f"the region is {area:.3%} of the image, below {self.request.min_area:.3%}")
        if area > self.request.max_area:
            raise NoMaskError("too large", f"the region is {area:.1%} of the image, above {self.request.max_area:.1%}")
        return made


def _make(parts: Parts, rows: Rows, judge: _Judge, console: Console) -> None:
    ids, done = parts.ids(), parts.done
    masked: list[Masked] = []
    refused: list[Refused] = []
    begun = done
    threads = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "masks") if judge.maker.parallel else nullcontext()
    with _progress(console) as progress, threads as pool:
        bar = progress.add_task("masks", total=len(rows), completed=done)
        for record, found in _verdicts(judge, rows.after(done), pool):
            done += 1
            if isinstance(found, Masked) and found.task_id in ids:
                reason = f"another task has the id {found.task_id!r}"
                found = Refused(found.task_id, printable(record.place), "repeated", reason)
            if isinstance(found, Masked):
                ids.add(found.task_id)
                masked.append(found)
            else:
                refused.append(found)
            progress.update(bar, completed=done)
            if done - begun >= ROWS_AT_MOST or sum(item.size for item in masked) >= BYTES_AT_MOST:
                parts.write((begun, done), masked, refused)
                masked, refused, begun = [], [], done
    if done > begun:
        parts.write((begun, done), masked, refused)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _verdicts(
    judge: _Judge, records: Iterator[Record], pool: ThreadPoolExecutor | None
) -> Iterator[tuple[Record, Masked | Refused]]:
    # In chunks, as the pool's own map would take in every record before it gives out the first verdict.
    while chunk := list(islice(records, _CHUNK if pool is not None else 1)):
        yield from zip(chunk, map(judge, chunk) if pool is None else pool.map(judge, chunk), strict=True)


def _masked(example: Example, by: str, made: Made, mask: bytes) -> Masked:
    values = {
        "task_id": example.task_id,
        "kind": example.kind,
        "instruction": example.instruction,
        "caption": example.caption,
        "phrase": example.phrase,
        "source": example.source.read(),
        "mask": mask,
        "target": None if example.target is None else example.target.read(),
        "references": [reference.read() for reference in example.references],
    }
    return Masked(values, by, float(made.inside.mean()), made.detail, example.digest)


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
