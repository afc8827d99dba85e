"""Scores and a picture of a pocket editor on held-out photographs, through the diffusers pipeline users run.

``python -m rc_grpo.pocket.evaluate --out docs/pocket`` scores the committed editor again.
"""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rc_grpo.images import decode_levels, decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.pocket import editors
from rc_grpo.pocket.world import IMAGE_SIZE, PocketWorld
from rc_grpo.seeds import derive, normal

STEPS = 8
"""Euler steps of every edit here."""

SUCCESS_REWARD = 0.75
"""The ground-truth judge's reward from which an edit counts as a success: what tells done from the other modes best.

`rc_grpo.pocket.modes` of 240 held-out tasks, painted and seen through the autoencoder: at 0.75 every done edit counts
and at most 1 in 120 of another mode; at 0.80 some done ones do not, at 0.65 1 in 40 of a wrong mode does
(``python -m benchmarks.pocket_world``, its detail ``modes``).
"""

_TOKENS = 64
_CELL, _GAP, _LINE = IMAGE_SIZE, 6, 18


def edit(pipeline: Any, task: EditTask, noises: Sequence[int], steps: int = STEPS) -> NDArray[np.float32]:
    """Edit one task once for each noise number; images ``[len(noises), 128, 128, 3]`` float32 in [0, 1]."""
    source, channels = Image.open(io.BytesIO(task.source)).convert("RGB"), pipeline.transformer.config.in_channels
    latents = torch.stack([normal(derive("pocket-eval", task.task_id, n), _TOKENS, channels) for n in noises])
    return editors.of(pipeline).edit(pipeline, source, task.instruction, latents, steps)


def scores(pipeline: Any, tasks: int, seeds: int) -> dict[str, Any]:
    """Edit held-out tasks with several noises each.

    Returns figures over all of them and for each kind of task. Errors are root mean squares over pixels in [0, 1].
    ``relative_error`` is the error inside the mask over the distance from source to target: 1 did nothing, 0 is
    perfect. ``background_drift`` is the error outside the mask, against the source, and ``background_psnr_db`` the same
    in dB, averaged over edits. ``*_std_within_task`` is the standard deviation over the noises, averaged over tasks:
    what a group of candidates has to choose from.
    """
    rows = [_errors(task, edit(pipeline, task, range(seeds))) for task in PocketWorld("heldout", tasks)]
    report: dict[str, Any] = {"steps": STEPS, "tasks": tasks, "noises_per_task": seeds, "all": _summary(rows)}
    for kind in ("add", "remove", "replace"):
        report[kind] = _summary([row for row in rows if row[0] == kind])
    return report


def world_figures(
    edits: Sequence[tuple[EditTask, NDArray[np.uint8]]], rewards: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Return what the base policy leaves to learn, from groups of its edits.

    Args:
        edits: tasks, each with a group of candidates ``[G, H, W, 3]``.
        rewards: of each group's candidates, by the ground-truth judge.

    Returns:
        ``base_success_share``: share of candidates whose reward is at least `SUCCESS_REWARD`; ``within_group_std``:
        standard deviation of the reward within a group, averaged over groups; ``base_background_psnr_db``: PSNR outside
        the mask, against the source, averaged over candidates.
    """
    table = [np.asarray(row, np.float64) for row in rewards]
    drifts = np.concatenate([_errors(task, images.astype(np.float32) / np.float32(255))[3] for task, images in edits])
    return {
        "base_success_share": float((np.concatenate(table) >= SUCCESS_REWARD).mean()),
        "within_group_std": float(np.mean([row.std() for row in table])),
        "base_background_psnr_db": float(_decibels(drifts).mean()),
    }


def _decibels(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the PSNR of root mean squares; an exact copy has that of half a level."""
    decibels: NDArray[np.float64] = -20 * np.log10(np.maximum(error, 0.5 / 255))
    return decibels


_Row = tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _errors(task: EditTask, images: NDArray[np.float32]) -> _Row:
    assert task.target is not None
    source, target = (decode_rgb(data) / 255.0 for data in (task.source, task.target))
    inside = decode_levels(task.mask) > 0
    edited = images.astype(np.float64)
    error = _rms(edited[:, inside] - target[inside])
    return task.kind, error, error / _rms((source - target)[None, inside]), _rms(edited[:, ~inside] - source[~inside])


def _rms(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    root: NDArray[np.float64] = np.sqrt(np.square(difference).mean(axis=(1, 2)))
    return root


def _summary(rows: Sequence[_Row]) -> dict[str, float]:
    names = ("edit_error", "relative_error", "background_drift")
    result: dict[str, float] = {}
    for column, name in enumerate(names, start=1):
        values = np.stack([np.asarray(row[column]) for row in rows])
        result[name] = round(float(values.mean()), 4)
        result[f"{name}_std_within_task"] = round(float(values.std(axis=1).mean()), 4)
    best = np.stack([row[2] for row in rows]).min(axis=1)
    result["relative_error_best_of_noises"] = round(float(best.mean()), 4)
    result["background_psnr_db"] = round(float(_decibels(np.stack([row[3] for row in rows])).mean()), 2)
    return result


def grid(pipeline: Any, tasks: int, noises: int = 4) -> Image.Image:
    """Draw held-out tasks as rows: source, mask outline, target, and edits that differ by their noise."""
    columns = 3 + noises
    step = _CELL + _GAP
    canvas = Image.new("RGB", (columns * step + _GAP, tasks * (step + _LINE) + _LINE), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for column, title in enumerate(("source", "mask", "target", *(f"noise {n}" for n in range(noises)))):
        draw.text((_GAP + column * step, 2), title, fill="black", font=font)
    # Held-out tasks beyond those scored, so that the picture is not a selection.
    world = PocketWorld("heldout", 1000 + tasks)
    for row in range(tasks):
        task = world[1000 + row]
        assert task.target is not None
        source, top = decode_rgb(task.source), _LINE + row * (step + _LINE)
        pictures = [source, _outlined(source, decode_levels(task.mask)), decode_rgb(task.target)]
        pictures += [(255 * image).round().astype(np.uint8) for image in edit(pipeline, task, range(noises))]
        for column, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (_GAP + column * step, top))
        draw.text((_GAP, top + _CELL + 1), task.instruction, fill="black", font=font)
    return canvas


def _outlined(source: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    inside = np.pad(mask > 0, 1)
    core = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    picture = source.copy()
    picture[(mask > 0) & ~core] = (255, 0, 255)
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Score a committed editor on the CPU and write ``scores.json`` and ``heldout_edits.png``."""
    import diffusers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--editor", choices=editors.NAMES, default=editors.NAMES[0])
    parser.add_argument("--tasks", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args(arguments)
    editor = editors.named(options.editor)
    pipeline = getattr(diffusers, editor.pipeline).from_pretrained(editor.folder)
    pipeline.set_progress_bar_config(disable=True)
    options.out.mkdir(parents=True, exist_ok=True)
    report = scores(pipeline, options.tasks, options.seeds)
    (options.out / "scores.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    grid(pipeline, 12).save(options.out / "heldout_edits.png", optimize=True)


if __name__ == "__main__":
    main()
