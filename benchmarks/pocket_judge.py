"""How well the pocket judge, served by vLLM, agrees with the ground truth on edits of photographs it never saw.

Real rollouts: groups of candidates of the packaged editor on held-out tasks, as training makes them. Beside them, for
each task, edits made by hand: the true target, the untouched source, half an edit, one that spills, broken ones, and
another task's. Spearman's rank correlation is over all of them; pairwise accuracy is within the groups of rollouts, on
pairs whose true scores differ by 0.1 or more: what GRPO uses.
"""

import argparse
import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.progress import track
from torchmetrics.functional import spearman_corrcoef

from benchmarks import results
from benchmarks.results import Figure
from benchmarks.served_judge import judge_on, pocket_judge_config, serving
from deploy.configs import load_config
from rc_grpo.config import RunConfig, SamplingConfig
from rc_grpo.editor.loading import load_editor
from rc_grpo.images import Pixels, decode_levels, decode_rgb
from rc_grpo.messages import EditTask, PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from reward_service.editscore import EditScoreJudge
from reward_service.ground_truth import GroundTruthJudge
from reward_service.judge import ARTIFACTS, NATURALNESS, OVER_EDITING, SUCCESS, Verdict
from rollout_workers.rollout import prepare, roll_out

WORLD_SEED = 3
"""Neither the training's worlds nor the one that runs evaluate on."""

POLICY = PolicyVersion(0, "packaged", 0, is_identity=True)
SUBSCORES = (SUCCESS, OVER_EDITING, NATURALNESS, ARTIFACTS)
REAL = "rollout"
PLOT = Path(__file__).parents[1] / "docs" / "pocket" / "judge.png"


@dataclass(frozen=True)
class Judged:
    """One edit's scores.

    Attributes:
        task: index of its task.
        kind: ``rollout``, or how it was made by hand.
        truth: the ground truth's verdict.
        judge: the served judge's.
    """

    task: int
    kind: str
    truth: Verdict
    judge: Verdict


def by_hand(task: EditTask, other: EditTask) -> dict[str, Pixels]:
    """Return edits of a task that span the scale, by the name of what is wrong with them."""
    assert task.target is not None
    assert other.target is not None
    source, target = (decode_rgb(data).astype(np.float32) for data in (task.source, task.target))
    inside = (decode_levels(task.mask) > 0)[..., None]
    noise = np.random.default_rng(int(inside.sum())).normal(0, 40, target.shape)
    blurred = np.asarray(Image.fromarray(target.astype(np.uint8)).filter(ImageFilter.GaussianBlur(3)))
    edits = {
        "target": target,
        "untouched": source,
        "half": (source + target) / 2,
        "spilled": np.where(inside, target, 0.7 * target + np.array([60.0, 20.0, 0.0])),
        "noisy": target + noise,
        "blurred in the mask": np.where(inside, blurred, target),
        "another task's": decode_rgb(other.target).astype(np.float32),
    }
    return {name: np.clip(image.round(), 0, 255).astype(np.uint8) for name, image in edits.items()}


def edits_of(config: RunConfig, tasks: Sequence[EditTask]) -> list[tuple[list[str], NDArray[np.uint8]]]:
    """Return each task's edits: a group of rollouts, then those made by hand."""
    torch.set_num_threads(2)
    editor = load_editor(config.editor, config.seed)
    found = []
    for index, task in enumerate(track(tasks, "rolling out")):
        seeds = RolloutSeeds.for_group(config.seed, 0, task.task_id, config.rollout.group_size)
        group = roll_out(editor, task.task_id, prepare(editor, task, config.rollout), seeds, POLICY, config.rollout)
        made = by_hand(task, tasks[index - 1])
        found.append(([REAL] * group.size + list(made), np.concatenate([group.images, np.stack(list(made.values()))])))
    return found


async def judged(judge: EditScoreJudge, tasks: Sequence[EditTask], edits: Any) -> list[Judged]:
    """Score all edits through the server and by the ground truth."""
    truth, limit = GroundTruthJudge(), asyncio.Semaphore(4)

    async def one(index: int) -> list[Judged]:
        kinds, images = edits[index]
        async with limit:
            verdicts = await judge.score(tasks[index], images)
        pairs = zip(kinds, truth.score(tasks[index], images), verdicts, strict=True)
        return [Judged(index, kind, true, verdict) for kind, true, verdict in pairs]

    return list(itertools.chain(*await asyncio.gather(*(one(index) for index in range(len(tasks))))))


def spearman(rows: Sequence[Judged], part: str | None = None) -> float:
    """Return the rank correlation of the rewards, or of one sub-score, over what could be scored."""
    pairs = [
        (row.truth.reward, row.judge.reward) if part is None else (row.truth.subscores[part], row.judge.subscores[part])
        for row in rows
        if not np.isnan(row.judge.reward)
    ]
    true, said = torch.tensor(pairs, dtype=torch.float64).T
    return float(spearman_corrcoef(said, true))


def pairwise_accuracy(rows: Sequence[Judged], least: float) -> tuple[float, int]:
    """Return the share of pairs of one task that the judge puts in the true order (a tie is half), and their number."""
    won, pairs = 0.0, 0
    for _, group in itertools.groupby(rows, key=lambda row: row.task):
        for first, second in itertools.combinations(list(group), 2):
            difference = first.truth.reward - second.truth.reward
            said = first.judge.reward - second.judge.reward
            if abs(difference) >= least and not np.isnan(said):
                pairs += 1
                won += 0.5 if said == 0 else float((said > 0) == (difference > 0))
    return won / pairs, pairs


def figures_of(rows: Sequence[Judged]) -> dict[str, Any]:
    """Return every measure of one way of sampling."""
    real = [row for row in rows if row.kind == REAL]
    accuracy, pairs = pairwise_accuracy(real, 0.1)
    return {
        "spearman": spearman(rows),
        "spearman_rollouts": spearman(real),
        "spearman_subscores": {part: spearman(rows, part) for part in SUBSCORES},
        "pairwise_accuracy": accuracy,
        "pairs": pairs,
        "pairwise_accuracy_0.05": pairwise_accuracy(real, 0.05)[0],
        "pairwise_accuracy_with_edits_by_hand": pairwise_accuracy(rows, 0.1)[0],
        "edits": len(rows),
        "failed": sum(bool(np.isnan(row.judge.reward)) for row in rows),
        "mean_by_kind": {
            kind: {
                "truth": float(np.mean([row.truth.reward for row in rows if row.kind == kind])),
                "judge": float(np.nanmean([row.judge.reward for row in rows if row.kind == kind])),
            }
            for kind in dict.fromkeys(row.kind for row in rows)
        },
    }


def draw(rows: Sequence[Judged], title: str) -> None:
    """Draw the judge's reward against the true one."""
    figure, axes = plt.subplots(figsize=(6, 5.6), constrained_layout=True)
    for kind in dict.fromkeys(row.kind for row in rows):
        chosen = [row for row in rows if row.kind == kind]
        axes.scatter(
            [row.truth.reward for row in chosen],
            [row.judge.reward for row in chosen],
            s=6 if kind == REAL else 14,
            alpha=0.5,
            label=kind,
            zorder=1 if kind == REAL else 2,
        )
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    axes.set(xlabel="ground truth", ylabel="pocket judge on vLLM", title=title)
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(PLOT, dpi=110)


async def measure(tasks: Sequence[EditTask], edits: Any) -> dict[str, list[Judged]]:
    """Judge everything as the packaged config does, greedily, and with four sampled passes; on one server."""
    config = pocket_judge_config()
    ways = {"packaged": config.sampling, "sampled_4_passes": SamplingConfig(passes=4, max_tokens=64)}
    async with serving(config) as server:
        found = {}
        for name, sampling in ways.items():
            judge = judge_on(server, config, sampling)
            found[name] = await judged(judge, tasks, edits)
        return found


def main() -> None:
    """Measure and write ``results/pocket_judge.json`` and ``docs/pocket/judge.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=120)
    options = parser.parse_args()
    config = load_config("pocket")
    tasks = list(PocketWorld("heldout", options.tasks, seed=WORLD_SEED))
    edits = edits_of(config, tasks)
    rows = asyncio.run(measure(tasks, edits))
    detail = {name: figures_of(judgements) for name, judgements in rows.items()}
    best = detail["packaged"]
    draw(rows["packaged"], f"Held-out edits: Spearman {best['spearman']:.3f}")
    figures = {
        "spearman": Figure(
            best["spearman"],
            "rank correlation with the ground truth",
            "at least 0.8",
            f"{best['edits']} edits of {len(tasks)} held-out tasks, one greedy pass each through vLLM",
        ),
        "pairwise_accuracy": Figure(
            best["pairwise_accuracy"],
            "share of pairs in the true order",
            "at least 0.75",
            f"{best['pairs']} pairs of rollouts of the same task whose true scores differ by 0.1 or more",
        ),
        "pairwise_accuracy_4_passes": Figure(
            detail["sampled_4_passes"]["pairwise_accuracy"],
            "share of pairs in the true order",
            None,
            "at temperature 0.7",
        ),
    }
    print(results.write("pocket_judge", figures, detail).read_text())


if __name__ == "__main__":
    main()
