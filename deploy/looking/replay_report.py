"""What a replay found: which parts of a group are the log's bit for bit, and what around them has changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.records.contact_sheet import Row, contact_sheet, task_row
from rc_grpo.data.log.logged import LoggedGroup
from rc_grpo.images import Pixels
from rc_grpo.messages import CandidateGroup, EditTask

CANDIDATES_ON_A_SHEET = 8


@dataclass(frozen=True)
class Comparison:
    """One part of a group, as logged and as replayed.

    Attributes:
        what: the part.
        elements: how many numbers it has.
        differing: how many of them differ in a bit.
        candidates: those with a differing number, in order; None for what belongs to the whole group.
        largest: largest absolute difference; infinite where one side is NaN or of another shape.
        note: where it begins, or why nothing could be compared number by number.
    """

    what: str
    elements: int
    differing: int
    candidates: tuple[int, ...] | None
    largest: float
    note: str = ""

    @property
    def identical(self) -> bool:
        """Whether every bit is the same."""
        return self.differing == 0


@dataclass(frozen=True)
class Surrounding:
    """Something that a rollout's bits depend on beside its seeds and weights."""

    what: str
    then: str
    now: str
    differs: bool


def compare(
    what: str, logged: NDArray[Any], replayed: NDArray[Any], *, by_candidate: bool = True, step_axis: int | None = None
) -> Comparison:
    """Compare two arrays by their bits: NaN equals itself, 0 is not -0.

    Args:
        what: name of the part.
        logged: ``[G, ...]``, or of any shape where it belongs to the whole group.
        replayed: likewise.
        by_candidate: the first axis is the candidates.
        step_axis: axis of the solver's steps, if the first step that differs is to be named.
    """
    everyone = tuple(range(len(logged))) if by_candidate else None
    if (logged.shape, logged.dtype) != (replayed.shape, replayed.dtype):
        note = f"logged as {logged.dtype} {list(logged.shape)}, now {replayed.dtype} {list(replayed.shape)}"
        return Comparison(what, logged.size, max(logged.size, 1), everyone, np.inf, note)
    bits = f"u{logged.dtype.itemsize}"
    changed = np.ascontiguousarray(logged).view(bits) != np.ascontiguousarray(replayed).view(bits)
    if not changed.any():
        return Comparison(what, logged.size, 0, () if by_candidate else None, 0.0)
    before, now = logged[changed].astype(np.float64), replayed[changed].astype(np.float64)
    distance = np.abs(before - now)
    distance[np.isnan(before) != np.isnan(now)] = np.inf
    return Comparison(
        what,
        logged.size,
        int(changed.sum()),
        tuple(np.flatnonzero(changed.reshape(len(changed), -1).any(axis=1)).tolist()) if by_candidate else None,
        float(np.nan_to_num(distance, posinf=np.inf).max()),
        "" if step_axis is None else _onset(changed, step_axis),
    )


def _onset(changed: NDArray[np.bool_], axis: int) -> str:
    others = tuple(index for index in range(changed.ndim) if index != axis)
    first = int(np.flatnonzero(changed.any(axis=others))[0])
    return "from the noise on" if first == 0 else f"from the state after step {first} on"


@dataclass(frozen=True, eq=False)
class ReplayReport:
    """A replayed group beside the logged one.

    Attributes:
        group: its name, ``UPDATE/TASK_ID``.
        task: of the training data.
        logged: the group of the log.
        replayed: the group made again.
        comparisons: everything that was logged and can be compared, causes before effects.
        surroundings: what bits depend on, then and now.
    """

    group: str
    task: EditTask
    logged: LoggedGroup
    replayed: CandidateGroup
    comparisons: tuple[Comparison, ...]
    surroundings: tuple[Surrounding, ...]

    @property
    def identical(self) -> bool:
        """Whether every bit that was logged came out again."""
        return all(comparison.identical for comparison in self.comparisons)

    def render(self, console: Console) -> None:
        """Print the verdict, the comparisons, and what has changed in the surroundings."""
        was = self.logged.candidates
        console.print(
            f"[bold]{escape(self.group)}[/bold]: {escape(repr(self.task.instruction))}, {was.size} candidates under "
            f"{was.policy} by {escape(was.worker)}",
            highlight=False,
        )
        console.print(self._table())
        changed = [surrounding for surrounding in self.surroundings if surrounding.differs]
        if shown := changed if self.identical else self.surroundings:
            console.print(_surroundings_table(shown))
        if self.identical:
            said = "[green]identical[/green]: every bit that was logged came out again"
            console.print(said + (", in other surroundings" if changed else ""))
        else:
            first = next(comparison for comparison in self.comparisons if not comparison.identical)
            console.print(
                f"[red]not identical[/red]: the first to differ is {first.what} {escape(first.note)}".rstrip()
            )
            console.print(self._advice(bool(changed)), highlight=False)
        if self.logged.level != "states":
            console.print(
                f"The run logged `{self.logged.level}`; `states` would have compared the trajectories too.",
                highlight=False,
            )

    def sheet(self) -> Image.Image:
        """Draw logged and replayed images and their difference, a candidate a row: those that differ, or all."""
        logged, replayed = self.logged.candidates.images, self.replayed.images
        if logged.shape != replayed.shape:
            cells = [(image, f"replayed {index}") for index, image in enumerate(replayed[:CANDIDATES_ON_A_SHEET])]
            return contact_sheet([task_row(self.task, cells)])
        distance = np.abs(logged.astype(np.int16) - replayed)
        by_candidate = distance.reshape(len(distance), -1).max(axis=1)
        shown = np.flatnonzero(by_candidate) if by_candidate.any() else np.arange(len(logged))
        rows: list[Row] = []
        for index in shown[np.argsort(-by_candidate[shown], kind="stable")][:CANDIDATES_ON_A_SHEET].tolist():
            difference = _stretched(distance[index]), f"at most {by_candidate[index]} of 255"
            cells = [(logged[index], f"logged {index}"), (replayed[index], f"replayed {index}"), difference]
            rows.append(task_row(self.task, cells))
        return contact_sheet(rows)

    def _table(self) -> Table:
        table = Table("compared", "", "differing", "candidates", "largest difference", "")
        for part in self.comparisons:
            verdict = "[green]identical[/green]" if part.identical else "[red]differs[/red]"
            count = "" if part.identical else f"{part.differing} of {part.elements}"
            who = ", ".join(map(str, part.candidates or ()))
            table.add_row(
                part.what, verdict, count, who, "" if part.identical else f"{part.largest:.3g}", escape(part.note)
            )
        return table

    def _advice(self, surroundings_changed: bool) -> str:
        if surroundings_changed:
            return (
                "Bits are promised on the same device, with the same threads and versions: look at what has changed "
                "there first (marked; machine, commit and versions are those of the driver)."
            )
        return (
            "The surroundings are those of the run's driver. If the worker ran on such a machine too, then the log, "
            "config.yaml, an image of the data or the code was changed, or a kernel does not give the same bits twice."
        )


def _surroundings_table(shown: Sequence[Surrounding]) -> Table:
    table = Table("surroundings", "", "then", "now")
    for surrounding in shown:
        mark = "[yellow]changed[/yellow]" if surrounding.differs else ""
        table.add_row(surrounding.what, mark, escape(surrounding.then), escape(surrounding.now))
    return table


def _stretched(distance: NDArray[np.int16]) -> Pixels:
    """Return a difference ``[H, W, 3]`` as a picture in which the largest is white."""
    return (distance * (255 / max(int(distance.max()), 1))).astype(np.uint8)
