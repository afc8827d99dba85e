"""Explore, then exact: which candidates of a large, cheaply made pool are made again, and what they are measured by.

Two-phase sampling: a cheap score of everyone, an exact one of a few. Ours throughout; the paper makes every candidate
exactly. What is learned from is exact, and is compared with the whole pool instead of with the extremes it was
chosen as, which would all look ordinary beside each other.
"""

import math

import torch
from torch import Tensor

from rc_grpo.algorithm.rewards import combine, tied


def choose(rewards: Tensor, size: int) -> tuple[int, ...] | None:
    """Choose a group of a pool: the reference, and of the others the best and the worst, as many of each.

    Where ``size - 1`` is odd, one more of the best. Of equals the earlier one is the better, so that the choice is a
    function of the rewards alone.

    Args:
        rewards: ``[M]`` of the pool, the reference first; NaN marks a candidate without a score, which is not chosen.
        size: G, the reference included; at least 3.

    Returns:
        Indices into the pool in rising order, the reference's 0 first; None where fewer than ``size - 1`` of the
        others have a score.

    Raises:
        ValueError: rewards that are no vector, or a group that is too small.
    """
    if rewards.dim() != 1:
        raise ValueError(f"rewards have shape {list(rewards.shape)}, expected [M]: one of each candidate of one pool")
    if size < 3:
        raise ValueError(f"size is {size}, expected at least 3: the reference, one of the best, one of the worst")
    values: list[float] = rewards.tolist()
    scored = [index for index in range(1, len(values)) if not math.isnan(values[index])]
    if len(scored) < size - 1:
        return None
    ranked = sorted(scored, key=lambda index: -values[index])
    worst = (size - 1) // 2
    return (0, *sorted(ranked[: size - 1 - worst] + ranked[len(ranked) - worst :]))


def whole_pool(exact: Tensor, explored: Tensor, chosen: Tensor) -> Tensor:
    """Return the rewards of everyone in the pools, as far as they are known.

    A candidate that was made exactly counts by its exact reward, everyone else by what the explored one foretells: the
    line of exact on explored rewards through the group's own (the regression estimator of two-phase sampling)::

        R_j = mean_g R + slope_g (E_j - mean_g E),    slope_g = cov_g(R, E) / var_g(E)

    Few steps may cost everybody the same, and may show less of a difference; neither is then an advantage of the exact
    ones. That the group was chosen by E does not bend the line, as it would if it were chosen by R. What the line
    leaves unexplained is missing in the spread of those who were not chosen.

    Args:
        exact: ``[P, G]``, any floating dtype; NaN marks a failed score, which leaves the pool.
        explored: ``[P, M]``; NaN marks a candidate without a score. A pool that is all NaN adds nobody to its group.
        chosen: ``[P, G]`` int64, where in its pool each candidate of a group stands.

    Returns:
        float64 ``[P, G + M]``: the group as it is in `exact`, then the pool; NaN for those who are in the group.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if exact.shape != chosen.shape or len(explored) != len(exact):
        raise ValueError(
            f"exact has shape {list(exact.shape)}, chosen {list(chosen.shape)} and explored {list(explored.shape)}, "
            "expected [P, G] twice and [P, M]"
        )
    foretold = torch.stack([_foretold(*parts) for parts in zip(exact.double(), explored.double(), chosen, strict=True)])
    return torch.cat([exact.double(), foretold.scatter(1, chosen, math.nan)], dim=1)


def _foretold(exact: Tensor, explored: Tensor, chosen: Tensor) -> Tensor:
    """Return the exact rewards ``[M]`` that explored ones foretell; NaN where there is no line to go by."""
    known = ~exact.isnan() & ~explored[chosen].isnan()
    ours, theirs = exact[known], explored[chosen][known]
    mean, origin = _mean(ours), _mean(theirs)
    if tied(theirs.tolist()):
        return mean + 0.0 * explored
    slope = math.fsum(((ours - mean) * (theirs - origin)).tolist()) / math.fsum((theirs - origin).square().tolist())
    return mean + slope * (explored - origin)


def combine_pool(task: Tensor, acd: Tensor, acd_weight: float) -> Tensor:
    """Add task and attention reward as `rc_grpo.algorithm.rewards.combine` does, for whole pools.

    The task reward is standardised over everyone in the pools of the minibatch, the attention reward over the groups,
    as it is recorded in exact rollouts alone. Those who have none count by their group's mean.

    Args:
        task: ``[P, G + M]`` as of `whole_pool`.
        acd: ``[P, G]``; NaN where it was not recorded. Not looked at with weight 0.
        acd_weight: w, non-negative.

    Returns:
        float64 ``[P, G + M]``; NaN for those who do not count.
    """
    if acd_weight == 0.0:
        return combine(task, None, 0.0)
    size = acd.shape[1]
    group = task[:, :size]
    known = torch.where(group.isnan(), group, acd.double())
    counted = torch.cat([torch.where(known.isnan(), known, group), task[:, size:]], dim=1)
    attention = combine(known, None, 0.0)
    means = attention.new_tensor([_mean(row) for row in attention])[:, None]
    everyone = torch.cat([attention, means.expand(-1, task.shape[1] - size)], dim=1)
    return combine(counted, None, 0.0) + acd_weight * everyone


def _mean(values: Tensor) -> float:
    known: list[float] = values[~values.isnan()].tolist()
    return math.fsum(known) / len(known) if known else math.nan
