"""Who did what when: what an observer saw of a run, as a picture."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

_COLOURS = {"rollout": "tab:blue", "judge": "tab:orange", "learner": "tab:green", "GPU": "0.45"}


def read(path: Path) -> list[dict[str, Any]]:
    """Return what an observer wrote; a last line that was cut off is left out."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def returns(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds from each kill until what was killed was back."""
    return {line["back"]: line["after"] for line in lines if "back" in line}


def taken_over(lines: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return what did the work of something that was killed while that was gone, and after how many seconds."""
    return [(line["taken_over"], line["after"]) for line in lines if "taken_over" in line]


def draw(lines: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw a row for each pool and each GPU, the ends of updates, and kills."""
    seen = [line for line in lines if "pools" in line]
    start = seen[0]["seconds"]
    at = np.array([line["seconds"] - start for line in seen])
    rows: list[tuple[str, str, NDArray[np.float64]]] = []
    for role in seen[-1]["pools"]:
        kind = "rollout" if role == "rollout" else "judge"
        rows.append((role.removeprefix("reward-"), kind, _busy(seen, role, at)))
    rows.append(("learner", "learner", np.array([float(line["updating"]) for line in seen])))
    for gpu in range(len(seen[-1]["gpus"])):
        busy = [line["gpus"][gpu][0] / 100 if gpu < len(line["gpus"]) else 0.0 for line in seen]
        rows.append((f"GPU {gpu}", "GPU", np.array(busy)))
    figure, axes = plt.subplots(
        len(rows), figsize=(11, 0.7 * len(rows) + 1.2), sharex=True, constrained_layout=True, squeeze=False
    )
    for axis, (name, kind, busy) in zip(axes[:, 0], rows, strict=True):
        axis.fill_between(at, 0, busy, step="post", color=_COLOURS[kind], linewidth=0)
        axis.set(ylim=(0, 1.05), yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.spines[["top", "right", "left"]].set_visible(False)
        _mark(axis, lines, start)
    for line in lines:
        if "killed" in line:
            where = (line["seconds"] - start, 1.0)
            axes[0, 0].annotate(f" {line['killed']}", where, va="top", fontsize=8, color="tab:red")
    for before, after in pairwise(seen):
        if after["update"] > before["update"]:
            axes[0, 0].annotate(
                str(after["update"]),
                (after["seconds"] - start, 1.05),
                ha="center",
                va="bottom",
                fontsize=7,
                color="0.4",
            )
    axes[-1, 0].set_xlabel("seconds; dotted: an update ends; red: it is killed, green: it is back")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _busy(seen: Sequence[dict[str, Any]], role: str, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of a pool's workers that had work, between one look and the next."""
    pools = [line["pools"].get(role, {}) for line in seen]
    worked = np.array([pool.get("busy_seconds", 0.0) for pool in pools])
    workers = np.array([max(pool.get("workers", 1.0), 1.0) for pool in pools])
    share = np.diff(worked) / np.maximum(np.diff(at), 1e-6) / workers[1:]
    return np.clip(np.append(share, 0.0), 0.0, 1.0)


def _mark(axis: Axes, lines: Sequence[dict[str, Any]], start: float) -> None:
    update = 0
    for line in lines:
        at = line["seconds"] - start
        if "killed" in line:
            axis.axvline(at, color="tab:red", linewidth=1)
        elif "back" in line:
            axis.axvline(at, color="tab:green", linewidth=1)
        elif line.get("update", update) > update:
            axis.axvline(at, linestyle=":", color="0.6", linewidth=0.8)
        update = max(update, line.get("update", 0))
