"""The ablation's pictures: distributions of exploration, curves of training, attention by layer and step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks.ablation.statistics import Array, Estimate, Trained

Arms = Mapping[str, Sequence[Trained]]
MOVING = 15
WORDS = {
    "drift": "background drift of a group (RMS)",
    "std": "std of reward within a group",
    "spread": "spread of backgrounds in a group (RMS)",
}


def distributions(quantities: Mapping[str, Mapping[str, Array]], path: Path) -> None:
    """Draw the empirical distribution functions over groups of some quantities (Fig. 5), by quantity and arm."""
    figure, panels = plt.subplots(1, len(quantities), figsize=(4.4 * len(quantities), 3.6), constrained_layout=True)
    for axes, (name, arms) in zip(panels, quantities.items(), strict=True):
        for arm, values in arms.items():
            axes.plot(np.sort(values), np.arange(1, len(values) + 1) / len(values), label=arm)
        axes.set(xlabel=WORDS[name], ylabel="share of groups", ylim=(0, 1))
    panels[0].legend(fontsize=8)
    _save(figure, path)


def curves(arms: Arms, path: Path) -> None:
    """Draw training reward, held-out reward and held-out PSNR over the updates, with the standard error over seeds."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), constrained_layout=True)
    for arm, runs in arms.items():
        training = np.array([run.series("reward").mean(axis=1) for run in runs])
        smooth = np.array([np.convolve(row, np.ones(5) / 5, mode="valid") for row in training])
        _band(panels[0], np.arange(3, 3 + smooth.shape[1]), smooth, arm)
        for axes, name in zip(panels[1:], ("reward", "background/psnr"), strict=True):
            at = sorted(runs[0].heldout)
            _band(axes, np.array(at), np.array([[run.heldout[u][name].mean() for u in at] for run in runs]), arm)
    for axes, words in zip(
        panels, ("training reward, mean of 5 updates", "held-out reward", "held-out background PSNR, dB"), strict=True
    ):
        axes.set(xlabel="update", title=words)
    panels[0].legend(fontsize=8)
    _save(figure, path)


def long_curves(arms: Arms, path: Path) -> None:
    """Draw training and held-out reward over candidates judged, and over seconds of a card, with errors over seeds."""
    figure, panels = plt.subplots(2, 2, figsize=(12, 8), constrained_layout=True, sharey="row")
    for arm, runs in arms.items():
        shortest = min(len(run.updates) for run in runs)
        at = sorted(set.intersection(*(set(run.heldout) for run in runs)) & set(range(shortest + 1)))
        spent = np.mean([[line["trained_seconds"] for line in run.updates[:shortest]] for run in runs], axis=0)
        seconds = np.concatenate([[0.0], spent * runs[0].card_share])
        samples = np.cumsum([0, *(line["candidates"] for line in runs[0].updates[:shortest])])
        training = np.array([run.series("reward")[:shortest].mean(axis=1) for run in runs])
        smooth = np.array([np.convolve(row, np.ones(MOVING) / MOVING, mode="valid") for row in training])
        heldout = np.array([[run.heldout[update]["reward"].mean() for update in at] for run in runs])
        for column, axis in enumerate((samples, seconds)):
            _band(panels[0, column], axis[MOVING:], smooth, arm)
            _band(panels[1, column], axis[at], heldout, arm)
    panels[0, 0].set(ylabel=f"training reward, mean of {MOVING} updates")
    panels[1, 0].set(ylabel="held-out reward", xlabel="candidates judged")
    panels[1, 1].set(xlabel="seconds of a card")
    panels[1, 1].legend(fontsize=8)
    _save(figure, path)


def gains(worlds: Mapping[str, Mapping[str, Estimate]], path: Path) -> None:
    """Draw the held-out gain of some arms in each world, with the intervals over seeds."""
    figure, axes = plt.subplots(figsize=(8, 3.6), constrained_layout=True)
    arms = list(next(iter(worlds.values())))
    for place, arm in enumerate(arms):
        found = [own[arm] for own in worlds.values()]
        axes.errorbar(
            np.arange(len(worlds)) + 0.15 * (place - (len(arms) - 1) / 2),
            [one.mean for one in found],
            yerr=[one.half_width for one in found],
            fmt="o",
            capsize=3,
            label=arm,
        )
    axes.set(ylabel="gain of the held-out reward", xticks=range(len(worlds)), xticklabels=list(worlds))
    axes.legend(fontsize=8)
    _save(figure, path)


def alpha_base(curve: Mapping[str, Mapping[str, Array]], path: Path) -> None:
    """Draw the means over groups against ``alpha_base``, with their standard errors, perturbation everywhere beside."""
    alphas = [name for name in curve if name != "global"]
    figure, panels = plt.subplots(1, len(WORDS), figsize=(4.4 * len(WORDS), 3.6), constrained_layout=True)
    for axes, (name, words) in zip(panels, WORDS.items(), strict=True):
        values = np.array([curve[alpha][name] for alpha in alphas])
        errors = values.std(axis=1, ddof=1) / values.shape[1] ** 0.5
        axes.errorbar(
            [float(alpha) for alpha in alphas],
            values.mean(axis=1),
            yerr=errors,
            marker="o",
            label="inside the mask",
        )
        axes.axhline(curve["global"][name].mean(), linestyle="--", color="grey", label="everywhere")
        axes.set(xlabel="alpha_base", ylabel=words, ylim=(0, None))
    panels[0].legend(fontsize=8)
    _save(figure, path)


def attention(found: Mapping[str, Any], path: Path) -> None:
    """Draw the densities of good and bad candidates by layer and step, and the effect size of their difference."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), constrained_layout=True)
    high = max(np.max(found["success"]), np.max(found["failure"]))
    bound = float(np.abs(found["effect_size"]).max())
    for axes, name, words, settings in (
        (panels[0], "success", "best candidate", {"vmin": 0, "vmax": high, "cmap": "viridis"}),
        (panels[1], "failure", "worst candidate", {"vmin": 0, "vmax": high, "cmap": "viridis"}),
        (panels[2], "effect_size", "effect size of the difference", {"vmin": -bound, "vmax": bound, "cmap": "RdBu_r"}),
    ):
        image = axes.imshow(np.array(found[name]), aspect="auto", **settings)
        axes.set(title=words, xlabel="step", ylabel="layer", yticks=range(len(found["layers"])))
        figure.colorbar(image, ax=axes)
    _save(figure, path)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, label: str) -> None:
    mean = values.mean(axis=0)
    (line,) = axes.plot(x, mean, label=label)
    if len(values) > 1:
        error = values.std(axis=0, ddof=1) / len(values) ** 0.5
        axes.fill_between(x, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
