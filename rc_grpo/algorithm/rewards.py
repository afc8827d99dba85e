"""From scores to advantages: two rewards on one scale, then each group against itself.

A failed score is NaN, and NaN means *absent*: that candidate is in no mean, in no spread and in no loss. It is never a
zero, a middle value or a random one. Statistics are float64 and correctly rounded sums, so they depend neither on the
order of the groups nor on how many candidates failed beside the ones that count.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

SkipReason = Literal["too_few_valid", "tied_task_rewards", "no_spread"]
"""Why a group gives no advantages."""

_TIED_WITHIN = 1e-6
"""Largest spread, relative to the largest magnitude, that is float32 round-off and not a difference."""


class GroupAdvantages(NamedTuple):
    """Advantages of a minibatch, and why some groups have none.

    Attributes:
        advantages: float64 ``[P, G]``. NaN for failed candidates of a group that counts (`rc_grpo.algorithm.objective`
            leaves them out), 0.0 throughout a skipped group.
        skipped: for each group, why it was skipped, or None.
    """

    advantages: Tensor
    skipped: tuple[SkipReason | None, ...]


def combine(task: Tensor, acd: Tensor | None, acd_weight: float) -> Tensor:
    """Add the task reward and the attention reward, each standardised over the whole minibatch (section 5.1).

    ::

        R_i = z_B(task)_i + w * z_B(acd)_i

    ``z_B`` takes mean and population standard deviation over every candidate that counts, of all groups together:
    pass the minibatch of all ranks, not one rank's share. A reward that is the same for all (spread below float32
    round-off) standardises to 0. That the default weight is 0.5 is our reading.

    A candidate with a NaN task reward leaves every statistic, the attention reward's too, and so does one with a NaN
    attention reward when that reward is in use. With weight 0, `acd` is not looked at.

    Args:
        task: task rewards ``[P, G]`` of P groups, any floating dtype; NaN marks a failed score.
        acd: attention concentration densities ``[P, G]``; may be None when `acd_weight` is 0.
        acd_weight: w, non-negative.

    Returns:
        float64 ``[P, G]`` on the device of `task`; NaN for the candidates that do not count.

    Raises:
        ValueError: on shapes that do not fit together, an infinite reward, or a negative weight.
    """
    _check_rewards("task", task)
    if not (acd_weight >= 0.0 and math.isfinite(acd_weight)):
        raise ValueError(f"acd_weight is {acd_weight}, expected a finite number of at least 0: 0 leaves acd out")
    valid = ~task.isnan()
    if acd_weight == 0.0:
        return _standardised(task, valid)
    if acd is None:
        raise ValueError(
            f"acd is None with acd_weight {acd_weight}: record attention in the rollouts, or set the weight to 0"
        )
    _check_rewards("acd", acd)
    if acd.shape != task.shape:
        raise ValueError(
            f"acd has shape {list(acd.shape)} and task {list(task.shape)}, expected equal: one of each a candidate"
        )
    valid &= ~acd.isnan()
    return _standardised(task, valid) + acd_weight * _standardised(acd, valid)


def ensemble(rewards: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Add the rewards of several judges, each standardised over the whole minibatch on its own (our reading).

    ::

        R_i = sum_k w_k z_B(R_k)_i

    so that a judge counts by its weight and not by how widely it happens to spread its marks. A candidate that one of
    these judges could not score has no reward, and leaves the statistics of all of them.

    Args:
        rewards: of each judge, ``[P, G]``, any floating dtype; NaN marks a failed score.
        weights: of each judge, above 0.

    Returns:
        float64 ``[P, G]`` on the device of the rewards. Of a single judge, its own reward in its own unit.

    Raises:
        ValueError: no judge, shapes that differ, an infinite reward, or a weight that is not above 0.
    """
    if not rewards or len(rewards) != len(weights):
        raise ValueError(f"{len(rewards)} rewards and {len(weights)} weights, expected as many of each, at least one")
    for index, (reward, weight) in enumerate(zip(rewards, weights, strict=True)):
        _check_rewards(f"rewards[{index}]", reward)
        if reward.shape != rewards[0].shape:
            raise ValueError(f"rewards[{index}] has shape {list(reward.shape)}, rewards[0] {list(rewards[0].shape)}")
        if not (weight > 0.0 and math.isfinite(weight)):
            raise ValueError(f"weights[{index}] is {weight}, expected a finite number above 0: leave the judge out")
    if len(rewards) == 1:
        return rewards[0].double()
    valid = torch.stack([~reward.isnan() for reward in rewards]).all(dim=0)
    parts = [weight * _standardised(reward, valid) for reward, weight in zip(rewards, weights, strict=True)]
    return torch.stack(parts).sum(dim=0)


def group_advantages(
    rewards: Tensor,
    clip: float = 5.0,
    *,
    min_valid: int = 3,
    min_std: float = 1e-3,
    epsilon: float = 1e-4,
    task: Tensor | None = None,
    quasi_norm_p: float | None = None,
    pool: Tensor | None = None,
) -> GroupAdvantages:
    """Compare every candidate with its own group (Eq. 4).

    ::

        A_i = (R_i - mean_g R) / (std_g R + epsilon)

    with the population standard deviation over the candidates that count; the reference takes part and has its own
    advantage. Groups without a real difference are skipped instead of having noise blown up to unit variance (our
    reading):

    - ``too_few_valid``: fewer than `min_valid` candidates have a reward;
    - ``tied_task_rewards``: the judge saw no difference (only with `task`), so that only attention noise is left;
    - ``no_spread``: the standard deviation is below `min_std`.

    With `quasi_norm_p` the standard deviation in the denominator (not in the skipping rule) gives way to Neighbor
    GRPO's quasi-norm, normalised here so that p = 2 is the standard deviation; that form is our reading::

        ( mean_g |R - mean_g R|^p )^(1/p)

    Args:
        rewards: combined rewards ``[P, G]``; NaN marks a candidate that does not count.
        clip: bound on the magnitude of an advantage, above 0. A standardised group of G never exceeds sqrt(G - 1).
        min_valid: fewest candidates worth comparing, at least 2.
        min_std: smallest standard deviation worth comparing, non-negative.
        epsilon: added to the denominator, above 0.
        task: task rewards ``[P, G]`` before they were combined, to see ties.
        quasi_norm_p: exponent above 0 (Neighbor GRPO: 0.8), or None for the standard deviation.
        pool: rewards ``[P, S]`` of everyone whom a group is compared with, itself included, NaN for who does not count:
            mean and spread are theirs, see `rc_grpo.algorithm.exploration`. None compares a group with itself.

    Returns:
        The advantages, float64 ``[P, G]`` on the device of `rewards`, and the reasons why groups were skipped.

    Raises:
        ValueError: on shapes that do not fit together, an infinite reward, or an option outside its range.
    """
    _check_rewards("rewards", rewards)
    if task is not None:
        _check_rewards("task", task)
        if task.shape != rewards.shape:
            raise ValueError(
                f"task has shape {list(task.shape)} and rewards {list(rewards.shape)}, expected equal: "
                "pass the task rewards that went into combine"
            )
    if pool is not None and (pool.dim() != 2 or len(pool) != len(rewards)):
        raise ValueError(f"pool has shape {list(pool.shape)}, expected a row for each of the {len(rewards)} groups")
    if not clip > 0.0:
        raise ValueError(f"clip is {clip}, expected a number above 0: use math.inf for no bound")
    if min_valid < 2:
        raise ValueError(
            f"min_valid is {min_valid}, expected at least 2: one candidate has nothing to be compared with"
        )
    if not min_std >= 0.0:
        raise ValueError(f"min_std is {min_std}, expected a number of at least 0: 0 skips no group for its spread")
    if not epsilon > 0.0:
        raise ValueError(f"epsilon is {epsilon}, expected a number above 0: it keeps the denominator from vanishing")
    if quasi_norm_p is not None and not (quasi_norm_p > 0.0 and math.isfinite(quasi_norm_p)):
        raise ValueError(f"quasi_norm_p is {quasi_norm_p}, expected a finite number above 0, or None for the std")

    advantages = rewards.new_zeros(rewards.shape, dtype=torch.float64)
    skipped: list[SkipReason | None] = []
    for group, row in enumerate(rewards.double()):
        valid = ~row.isnan()
        values: list[float] = row[valid].tolist()
        if len(values) < min_valid:
            skipped.append("too_few_valid")
            continue
        if task is not None and tied(task[group][valid].tolist()):
            skipped.append("tied_task_rewards")
            continue
        if pool is not None:
            values = pool[group][~pool[group].isnan()].tolist()
        mean, std = _mean_and_std(values)
        if std < min_std:
            skipped.append("no_spread")
            continue
        skipped.append(None)
        scale = std if quasi_norm_p is None else _power_mean([abs(value - mean) for value in values], quasi_norm_p)
        # A failed candidate's NaN comes through the arithmetic and stays in its place.
        advantages[group] = ((row - mean) / (scale + epsilon)).clamp(-clip, clip)
    return GroupAdvantages(advantages, tuple(skipped))


def nothing_to_learn(rewards: Sequence[Tensor], acd: Tensor | None = None, *, min_valid: int = 3) -> SkipReason | None:
    """Tell of one group, before it is in a minibatch, why `group_advantages` would skip it there.

    What a minibatch decides is left out: ``no_spread`` depends on the other groups' spreads. And of several judges one
    difference is enough here, while in a minibatch two that cancel exactly are a tie.

    Args:
        rewards: of each judge that is learned from, ``[G]``; NaN marks a failed score.
        acd: attention concentration densities ``[G]``, where they are learned from.
        min_valid: fewest candidates worth comparing.

    Returns:
        ``too_few_valid``, ``tied_task_rewards``, or None for a group that can be learned from.
    """
    counted = [*rewards] if acd is None else [*rewards, acd]
    valid = torch.stack([~reward.isnan() for reward in counted]).all(dim=0)
    if int(valid.sum()) < min_valid:
        return "too_few_valid"
    return "tied_task_rewards" if all(tied(reward[valid].tolist()) for reward in rewards) else None


def _check_rewards(name: str, rewards: Tensor) -> None:
    if rewards.dim() != 2 or rewards.numel() == 0 or not rewards.is_floating_point():
        raise ValueError(
            f"{name} is {rewards.dtype} of shape {list(rewards.shape)}, expected floating point [P, G]: "
            "a row a group, a column a candidate"
        )
    if bool(rewards.isinf().any()):
        raise ValueError(f"{name} holds an infinite value: a score that failed is NaN, anything else is finite")


def _standardised(rewards: Tensor, valid: Tensor) -> Tensor:
    """Return z-scores over the valid entries in float64, and NaN elsewhere."""
    exact = rewards.double()
    scores = torch.full_like(exact, math.nan)
    values: list[float] = exact[valid].tolist()
    if tied(values):
        scores[valid] = 0.0
    else:
        mean, std = _mean_and_std(values)
        scores[valid] = (exact[valid] - mean) / std
    return scores


def tied(values: list[float]) -> bool:
    """Tell whether values differ by no more than float32 round-off; none at all do not differ."""
    if not values:
        return True
    return max(values) - min(values) <= _TIED_WITHIN * max(abs(value) for value in values)


def _mean_and_std(values: list[float]) -> tuple[float, float]:
    # fsum rounds once: the result is the same bits in whatever order the groups arrived.
    mean = math.fsum(values) / len(values)
    return mean, _power_mean([abs(value - mean) for value in values], 2.0)


def _power_mean(magnitudes: list[float], p: float) -> float:
    return float((math.fsum(magnitude**p for magnitude in magnitudes) / len(magnitudes)) ** (1.0 / p))
