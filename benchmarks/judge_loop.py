"""A training that learns from the vLLM judge alone, watched by the ground truth.

One full run of the packaged config ``pocket_vllm``. The ground truth judges every candidate and the held-out edits with
weight 0: what it says is the measure and never the reward.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks import results
from benchmarks.results import Figure
from benchmarks.runs import failed_scores, records_of, summary_of, train

PLOT = Path(__file__).parents[1] / "docs" / "pocket" / "judge_loop.png"
JUDGES = {"ground_truth": "ground truth (weight 0)", "editscore": "pocket judge on vLLM (learned from)"}
WARM_UP = 2


def share(records: Sequence[dict[str, Any]], seconds: str) -> float:
    """Return the share of the updates' time that a kind of seconds takes."""
    return float(sum(record[seconds] for record in records) / sum(record["seconds/update_total"] for record in records))


def busy(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how much of its time each pool worked, and the learner."""
    pools = ("rollout", "reward-editscore", "reward-ground_truth")
    shares = {pool: statistics.fmean(record[f"pool/{pool}_busy_share"] for record in records) for pool in pools}
    return shares | {"learner": share(records, "update/seconds")}


def draw(folder: Path) -> None:
    """Draw both judges over the training, on the candidates and on the held-out edits."""
    updates, evaluations = records_of(folder), records_of(folder, "evaluation")
    figure, (training, heldout) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for judge, label in JUDGES.items():
        training.plot(
            [record["update"] for record in updates],
            [record[f"reward/{judge}_mean"] for record in updates],
            label=label,
        )
        heldout.plot(
            [record["update"] for record in evaluations],
            [record[f"heldout/reward/{judge}"] for record in evaluations],
            marker="o",
            label=label,
        )
    training.set(title="candidates in training", xlabel="update", ylabel="mean reward")
    heldout.set(title="held-out edits, same tasks and seeds", xlabel="update")
    training.legend(fontsize=8)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Train, and write ``results/judge_loop.json`` and ``docs/pocket/judge_loop.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override a key; repeatable")
    root = Path(tempfile.mkdtemp(prefix="rc-grpo-benchmark-"))
    try:
        folder = train("pocket_vllm", root, "judge-loop", *parser.parse_args().set)
        summary, counts = summary_of(folder), failed_scores(folder)
        records = records_of(folder)
        draw(folder)
    finally:
        shutil.rmtree(root)
    steady, gains = records[WARM_UP:], summary["heldout"]["by_judge"]
    shares = busy(steady)
    busiest = max(shares, key=lambda pool: shares[pool])
    truth = gains["ground_truth"]
    figures = {
        "heldout_gain_in_standard_errors": Figure(
            truth["gain_in_standard_errors"],
            "paired standard errors",
            "more than 3",
            f"ground truth, {truth['tasks']} held-out tasks; learned from the vLLM judge alone",
        ),
        "heldout_before": Figure(truth["before"], "mean ground-truth reward, 0..1"),
        "heldout_after": Figure(truth["after"], "mean ground-truth reward, 0..1"),
        "learner_wait_share": Figure(
            share(steady, "seconds/waiting_for_scores"),
            "share of the updates' time",
            "below 0.03 when the judge is not the bottleneck",
            f"learner idle, all rollouts done, scores still to come; the busiest pool is {busiest}",
        ),
        "failed_scores": Figure(
            counts["failed"], "candidates", None, f"of {counts['candidates']} in the experience log"
        ),
        "failed_and_learned_from": Figure(counts["failed_and_learned_from"], "candidates", "0"),
        "train_minutes": Figure(summary["training_minutes"], "minutes", None, "held-out evaluations included"),
    }
    detail = {
        "busy_share": shares,
        "waiting_for_rollouts_share": share(steady, "seconds/waiting_for_rollouts"),
        "seconds_per_update": statistics.median(record["seconds/update_total"] for record in steady),
        "heldout": gains,
        "experience": counts,
    }
    print(results.write("judge_loop", figures, detail).read_text())


if __name__ == "__main__":
    main()
