"""Contact sheets: what people look at. A row a task: sources, mask, candidates from best to worst."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from rc_grpo.editor.geometry import binary_mask, resize_image, resize_mask
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.messages import EditTask, GroupScores

CELL_AT_MOST = 192
GAP = 6
LINE = 16
_LINES_IN_A_CELL = 128
"""An outline is as wide as one of so many lines of the image, so that it survives the thumbnail."""


@dataclass(frozen=True)
class Row:
    """One line of a sheet.

    Attributes:
        title: printed above the images.
        cells: images ``[h, w, 3]`` uint8 and what is printed under each.
    """

    title: str
    cells: tuple[tuple[Pixels, str], ...]


def task_row(task: EditTask, cells: Sequence[tuple[Pixels, str]] = ()) -> Row:
    """Return a row of source, mask and target (if known), then edits of the task with what is printed under each.

    All have the size of the edits; without any, twice that of the sheet's cells at most. References come behind the
    source, in their own proportions.
    """
    source = decode_rgb(task.source)
    height, width = cells[0][0].shape[:2] if cells else _fitted(*source.shape[:2], 2 * CELL_AT_MOST)
    source = resize_image(source, height, width)
    given = [(source, "source")]
    for number, image in enumerate(map(decode_rgb, task.references), 2):
        given.append((resize_image(image, *_fitted(*image.shape[:2], max(height, width))), f"source {number}"))
    given.append((outlined(source, resize_mask(binary_mask(task.mask), height, width)), "mask"))
    if task.target is not None:
        given.append((resize_image(decode_rgb(task.target), height, width), "target"))
    return Row(f"{task.task_id}: {task.instruction}", (*given, *cells))


def group_row(task: EditTask, images: NDArray[np.uint8], scores: GroupScores, *, at_most: int = 8) -> Row:
    """Return the row of a group's candidates by reward, those without one last.

    Of more than ``at_most`` candidates the best, the worst and some between are shown.
    """
    cells, rewards = [], scores.task_reward
    order = sorted(range(len(images)), key=lambda index: (np.isnan(rewards[index]), -rewards[index]))
    shown = np.unique(np.linspace(0, len(order) - 1, min(at_most, len(order))).round().astype(int))
    for index in (order[position] for position in shown):
        cells.append((images[index], f"{scores.in_words(index)}{' (reference)' if index == 0 else ''}"))
    return task_row(task, cells)


def contact_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw rows under each other, on white."""
    font = ImageFont.load_default(size=12)
    thumbnails = [[(_thumbnail(image), label) for image, label in row.cells] for row in rows]
    width = max(sum(image.width + GAP for image, _ in cells) for cells in thumbnails) + GAP
    titles = [textwrap.wrap(row.title, int((width - 2 * GAP) / font.getlength("n"))) or [""] for row in rows]
    heights = [
        max(image.height for image, _ in cells) + (len(title) + 1) * LINE + GAP
        for title, cells in zip(titles, thumbnails, strict=True)
    ]
    sheet = Image.new("RGB", (width, sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for title, cells, height in zip(titles, thumbnails, heights, strict=True):
        for number, line in enumerate(title):
            draw.text((GAP, top + number * LINE), line, fill="black", font=font)
        left, below = GAP, top + len(title) * LINE
        for image, label in cells:
            sheet.paste(image, (left, below))
            draw.text((left, below + image.height), label, fill="dimgray", font=font)
            left += image.width + GAP
        top += height
    return sheet


def _fitted(height: int, width: int, at_most: int) -> tuple[int, int]:
    scale = min(1.0, at_most / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _thumbnail(image: Pixels) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((CELL_AT_MOST, CELL_AT_MOST))
    return picture


def outlined(image: Pixels, inside: NDArray[np.float32]) -> Pixels:
    """Return an image with a mask's border drawn in black and white, one of which shows on any colour.

    The border lies within the mask, along the image's edge as well, so that a mask of the whole image has one.

    Args:
        image: ``[h, w, 3]`` uint8.
        inside: ``[h, w]``, above 0.5 where the edit may happen. Beyond the border nothing is changed.
    """
    line = max(1, round(min(image.shape[:2]) / _LINES_IN_A_CELL))
    region = np.pad(inside > 0.5, 2 * line)
    black, white = (_shrunk(region, width)[2 * line : -2 * line, 2 * line : -2 * line] for width in (line, 2 * line))
    drawn = image.copy()
    drawn[(inside > 0.5) & ~black] = 0
    drawn[black & ~white] = 255
    return drawn


def _shrunk(region: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(region).convert("L").filter(ImageFilter.MinFilter(2 * width + 1))) > 0
