"""What the page knows about measures by their names: which curves belong together, and which way is better."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

TASK_REWARD, ACD_REWARD = "reward/task_mean", "acd/mean"

TITLES = {
    TASK_REWARD: "Task reward, mean",
    "reward/task_within_group_std": "Task reward, spread within a group",
    "background_drift/mean": "Background drift, mean",
    "background_drift/within_group_std": "Background drift, spread within a group",
    "acd/mean": "ACD reward, mean",
    "acd/within_group_std": "ACD reward, spread within a group",
    "diversity/mean": "Diversity of a group's images",
    "heldout/reward": "Held-out reward",
    "heldout/background_drift": "Held-out background drift",
    "update/grad_norm": "Gradient norm",
    "update/learning_rate": "Learning rate",
    "groups_skipped/share": "Share of groups skipped",
    "reward/failed_scores": "Scores that failed",
    "ledger/replaced_tied_task_rewards": "Groups replaced so far, scored alike",
    "ledger/replaced_too_few_valid": "Groups replaced so far, with too few scores",
    "reward/judge_latency_seconds": "Latency of the judges, seconds",
    "heldout/failed": "Held-out scores that failed",
    "staleness/max": "Staleness of groups, maximum",
}
"""Others are shown by their names."""

PARTS_OF_A_STEP = {
    "objective": "Objective",
    "kl": "KL to the reference",
    "max_abs_log_ratio": "Largest |log ratio|",
    "max_abs_log_ratio_edit": "Largest |log ratio|, edit region",
    "max_abs_log_ratio_background": "Largest |log ratio|, background",
    "clip_fraction": "Share clipped",
    "clip_fraction_edit": "Share clipped, edit region",
    "clip_fraction_background": "Share clipped, background",
    "recomputed_max_abs_log_ratio": "Largest |log ratio| of unchanged weights",
}
"""Last part of ``update/STEP/...`` -> title."""

SECTIONS = {
    "Reward and exploration": (
        TASK_REWARD,
        "reward/task_within_group_std",
        "background_drift/mean",
        "background_drift/within_group_std",
        "acd/*",
        "diversity/*",
    ),
    "Held-out tasks": ("heldout/reward", "heldout/background_drift", "heldout/*"),
    "What the judges say": ("judge/*",),
    "The update": (
        "update/grad_norm",
        "update/*/objective",
        "update/*/kl",
        "update/*/max_abs_log_ratio",
        "update/*/clip_fraction",
        "update/*_edit",
        "update/*_background",
        "update/*recomputed_max_abs_log_ratio",
        "update/learning_rate",
    ),
    "Health": (
        "groups_skipped/share",
        "ledger/replaced_*",
        "reward/failed_scores",
        "staleness/max",
        "reward/judge_latency_seconds",
    ),
}
"""Section -> patterns of metrics' names, in the order of the page."""

_LOWER = ("drift", "lpips", "failed", "error", "leak")


def lower_is_better(name: str) -> bool:
    """Return whether a held-out measure is better when it is smaller."""
    return any(word in name for word in _LOWER)


def title(name: str) -> str:
    """Return a metric's name for people."""
    if name in TITLES:
        return TITLES[name]
    head, *rest = name.split("/")
    if head == "update" and len(rest) == 2 and rest[1] in PARTS_OF_A_STEP:
        return f"{PARTS_OF_A_STEP[rest[1]]}, {rest[0].replace('_', ' ')}"
    return name.replace("heldout/", "held-out/").replace("_", " ").replace("/", " / ")


def sections(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the sections that have a metric among ``names``, each with its metrics; no metric comes twice."""
    left = sorted(names)
    for section, patterns in SECTIONS.items():
        found = list(dict.fromkeys(name for pattern in patterns for name in left if fnmatchcase(name, pattern)))
        if found:
            yield section, found
            left = [name for name in left if name not in found]
