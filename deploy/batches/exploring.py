"""Explore, then exact: which candidates of a judged pool a group is made of."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from rc_grpo.algorithm.exploration import choose
from rc_grpo.algorithm.rewards import ensemble
from rc_grpo.messages import Explored, GroupScores, PolicyVersion, RolloutSeeds


def chosen_of_pool(
    policy: PolicyVersion,
    seeds: RolloutSeeds,
    images: tuple[str, ...],
    scores: GroupScores,
    weights: Mapping[str, float],
    group_size: int,
) -> Explored | None:
    """Return a judged pool with the candidates that its group is made of, or None where too few have a score.

    Args:
        policy: the version that made the pool.
        seeds: of the pool.
        images: digests of its edits.
        scores: what the judges made of it.
        weights: of each judge by its name.
        group_size: G.
    """
    chosen = choice(scores.rewards, weights, group_size)
    return None if chosen is None else Explored(policy, seeds, chosen, scores.rewards, scores.pruned, images)


def choice(
    rewards: Mapping[str, NDArray[Any]], weights: Mapping[str, float], group_size: int
) -> tuple[int, ...] | None:
    """Return the candidates that a pool's group is made of, which the judges' rewards ``[M]`` alone decide.

    Several judges' rewards are standardised over the pool one by one and added by weight, as over a minibatch; one of
    weight 0 has no say. See `choose`.
    """
    counted = {name: weight for name, weight in weights.items() if weight > 0}
    each = [torch.tensor(rewards[name])[None] for name in counted]
    return choose(ensemble(each, list(counted.values()))[0], group_size)
