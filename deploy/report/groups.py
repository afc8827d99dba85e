"""A run's best and worst groups: what was to be edited, the candidates, and where their attention was concentrated."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.records.contact_sheet import task_row
from deploy.records.reading import RunRecord
from deploy.report.distributions import GroupNote
from rc_grpo.config import ConfigError, parse
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.log.logged import LoggedGroup, read_groups
from rc_grpo.images import Pixels, encode_png
from rc_grpo.messages import EditTask

LAST_UPDATES = 10
"""Groups are chosen from so many updates, the last ones logged: what the trained policy does."""
CANDIDATES_AT_MOST = 8
SIDE_AT_MOST = 256
JPEG_QUALITY = 88
HEAT = "viridis"


@dataclass(frozen=True)
class Heat:
    """A candidate's attention concentration densities, a pixel a layer and step.

    Attributes:
        uri: a PNG ``[layers, steps]``; the colours span the group's smallest and largest.
        alt: what it shows, in words.
    """

    uri: str
    alt: str


@dataclass(frozen=True)
class Cell:
    """An image with what is printed under it.

    Attributes:
        uri: a JPEG.
        size: width and height in pixels.
        lines: under it.
        alt: what it is, in words.
        heat: of a candidate whose attention was recorded.
        failed: scoring failed.
    """

    uri: str
    size: tuple[int, int]
    lines: tuple[str, ...]
    alt: str
    heat: Heat | None = None
    failed: bool = False


@dataclass(frozen=True)
class ShownGroup:
    """One group on the page.

    Attributes:
        rank: ``best`` or ``worst``; empty where groups are not compared.
        note: its numbers.
        instruction: what was to be done.
        given: source, mask and target, as far as the data set is there.
        candidates: by reward, those without one last.
        densities: smallest and largest ACD of the group, layers and steps; None where nothing was recorded.
        order: the candidates' numbers, as they are shown.
    """

    rank: str
    note: GroupNote
    instruction: str
    given: tuple[Cell, ...]
    candidates: tuple[Cell, ...]
    densities: tuple[float, float, int, int] | None
    order: tuple[int, ...]


@dataclass(frozen=True)
class Gallery:
    """A run's groups, or why there are none.

    Attributes:
        run: its name.
        groups: the best, then the worst.
        remark: what is missing and why; empty if nothing is.
    """

    run: str
    groups: tuple[ShownGroup, ...]
    remark: str


def gallery(run: RunRecord, notes: Sequence[GroupNote], count: int) -> Gallery:
    """Return at most ``count`` groups of the highest mean reward and as many of the lowest, of the last updates."""
    ranked = chosen(notes, count)
    if not ranked:
        return Gallery(run.name, (), "The log holds no scored group.")
    try:
        groups = [read_groups(note.path, need="images", task_id=note.task_id)[note.turn] for _, note in ranked]
    except ValueError as error:
        return Gallery(run.name, (), f"There is nothing to show: {error}")
    tasks: dict[str, EditTask] = {}
    remark = ""
    try:
        data = load_tasks(parse(run.config).data.train)
        found = [data.find(name) for name in {note.task_id for _, note in ranked}]
        tasks = {task.task_id: task for task in found if task is not None}
    except (DataError, ConfigError) as error:
        remark = f"Sources and masks are not shown, as the training data cannot be read here: {error}"
    pairs = zip(ranked, groups, strict=True)
    shown = [shown_group(rank, note, group, tasks.get(note.task_id)) for (rank, note), group in pairs]
    return Gallery(run.name, tuple(shown), remark)


def chosen(notes: Sequence[GroupNote], count: int) -> list[tuple[str, GroupNote]]:
    """Return the best and the worst groups by mean reward; no group is both."""
    late = sorted({note.update for note in notes})[-LAST_UPDATES:]
    scored = sorted((n for n in notes if n.update in late and np.isfinite(n.reward)), key=lambda n: -n.reward)
    best = scored[:count]
    return [("best", note) for note in best] + [("worst", note) for note in scored[len(best) :][-count:][::-1]]


def shown_group(rank: str, note: GroupNote, group: LoggedGroup, task: EditTask | None) -> ShownGroup:
    """Return a group as pages show it.

    Args:
        rank: see `ShownGroup`.
        note: the group's numbers.
        group: logged with its images; without them it has no pictures.
        task: for its source and mask; None where the data set is not there.
    """
    candidates, rewards = group.candidates, group.scores.task_reward
    order = sorted(range(candidates.size), key=lambda index: (np.isnan(rewards[index]), -rewards[index]))
    kept = np.unique(np.linspace(0, len(order) - 1, min(CANDIDATES_AT_MOST, len(order))).round().astype(int))
    shown = tuple(order[place] for place in kept.tolist())
    cells = tuple(_candidate(group, index) for index in shown) if candidates.images.size else ()
    given: tuple[Cell, ...] = ()
    if task is not None and cells:
        row = task_row(task, [(candidates.images[0], "")])
        given = tuple(
            Cell(*_jpeg(image), (what,), _ALT.get(what, f"Another image to refer to, {what}"))
            for image, what in row.cells[:-1]
        )
    acd = candidates.acd
    densities = None if acd is None else (float(acd.min()), float(acd.max()), acd.shape[1], acd.shape[2])
    return ShownGroup(rank, note, group.instruction, given, cells, densities, shown)


_ALT = {
    "source": "The source image",
    "mask": "The source image with the edit region outlined",
    "target": "The true result",
}


def _candidate(group: LoggedGroup, index: int) -> Cell:
    word, acd = group.scores.in_words(index), group.candidates.acd
    failed = word == "failed"
    said = "scoring failed" if failed else word if index in group.scores.pruned else f"reward {word}"
    name = "The reference candidate" if index == 0 else f"Candidate {index}"
    lines = [said]
    heat = None
    if acd is not None:
        lines.append(f"ACD {group.scores.acd_reward[index]:.3f}")
        heat = _heat(acd[index], float(acd.min()), float(acd.max()), name)
    if index == 0:
        lines.append("reference")
    return Cell(*_jpeg(group.candidates.images[index]), tuple(lines), f"{name}, {said}", heat, failed)


def _heat(density: NDArray[np.float32], low: float, high: float, name: str) -> Heat:
    colours = mpl.colormaps[HEAT]((density - low) / max(high - low, 1e-12), bytes=True)[..., :3]
    by_layer = ", ".join(f"{value:.2f}" for value in density.mean(axis=1))
    return Heat(
        _uri("png", encode_png(np.ascontiguousarray(colours))), f"{name}: mean ACD by layer, top to bottom: {by_layer}"
    )


def _jpeg(pixels: Pixels) -> tuple[str, tuple[int, int]]:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((SIDE_AT_MOST, SIDE_AT_MOST))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _uri("jpeg", buffer.getvalue()), picture.size


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
