"""What a batch of scores asks of the ranks: advantages, anchors and trained steps of each group, dealt out evenly.

Statistics of the minibatch are taken here, over all groups together, so that how groups are dealt cannot change them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rc_grpo.algorithm import sde
from rc_grpo.algorithm.exploration import combine_pool, whole_pool
from rc_grpo.algorithm.rewards import (
    GroupAdvantages,
    SkipReason,
    combine,
    ensemble,
    group_advantages,
    nothing_to_learn,
)
from rc_grpo.algorithm.surrogate import sample_anchors
from rc_grpo.config import ObjectiveConfig, SdeConfig, Solver
from rc_grpo.messages import GroupScores
from rc_grpo.seeds import derive, permutation

IDLE_SHARE = 0.05
"""Of the ranks' time that may be lost before groups are cut: pieces go through the model in smaller batches."""


@dataclass(frozen=True)
class RunShape:
    """What the learner has to know of the rest of the run.

    Attributes:
        seed: of the run.
        method: solver of the rollouts.
        steps: T of the rollouts.
        updates: of the whole run, for the schedule.
        max_staleness: how many versions old a group may be.
        judge_weights: of each judge; one of weight 0 is not learned from.
        sde: of the rollouts, if they sample so.
    """

    seed: int
    method: Solver
    steps: int
    updates: int
    max_staleness: int
    judge_weights: Mapping[str, float]
    sde: SdeConfig | None = None

    def window(self, version: int) -> range:
        """Return the steps that a policy version trains: MixGRPO's window, or all of them."""
        if self.sde is None:
            return range(self.steps)
        return sde.window(self.steps, self.sde.window, self.sde.moved(version))


@dataclass(frozen=True)
class GroupWork:
    """What the driver asks of a rank for one group.

    Attributes:
        group: reference to the group's record batch.
        conditions: reference to the task's conditions.
        advantages: ``[G]`` float64; NaN leaves a candidate out of the loss.
        anchors: candidate indices, never 0.
        steps: trained steps n (0-based), each leading to state n+1.
        on_policy: the group was rolled out under the weights that the learner has now.
        weight: the share of the group that its anchors are, or 0 for work that only keeps ranks in step.
        turn: counts the groups that ranks have had; all are at the same one at the same time.
        beside_stale: the group is on policy, another rank's of this turn is not, and both must ask for the same passes.
    """

    group: Any
    conditions: Any
    advantages: NDArray[np.float64]
    anchors: tuple[int, ...]
    steps: tuple[int, ...]
    on_policy: bool
    weight: float = 1.0
    turn: int = 0
    beside_stale: bool = False


def batch_advantages(
    scores: Sequence[GroupScores], weights: Mapping[str, float], config: ObjectiveConfig
) -> GroupAdvantages:
    """Return the advantages ``[P, G]`` of a minibatch, and why groups are skipped (section 5.1, Eq. 4).

    Args:
        scores: of each group.
        weights: of each judge by its name.
        config: how rewards are combined and groups skipped.
    """
    counted = {name: weight for name, weight in weights.items() if weight > 0}
    rewards = [torch.tensor(np.stack([group.rewards[name] for group in scores])) for name in counted]
    acd = torch.tensor(np.stack([group.acd_reward for group in scores]))
    size, pool = acd.shape[1], None
    if any(group.explored is not None for group in scores):
        explored, chosen = _pools(scores, list(counted))
        rewards = [whole_pool(*parts, chosen) for parts in zip(rewards, explored, strict=True)]
        task = ensemble(rewards, list(counted.values()))
        pool = combine_pool(task, acd, config.acd_weight)
        combined, task = pool[:, :size], task[:, :size]
    else:
        task = ensemble(rewards, list(counted.values()))
        combined = combine(task, acd, config.acd_weight)
    return group_advantages(
        combined,
        config.advantage_clip,
        min_valid=config.min_valid,
        min_std=config.min_std,
        task=task,
        quasi_norm_p=config.quasi_norm_p,
        pool=pool,
    )


def _pools(scores: Sequence[GroupScores], names: Sequence[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return each judge's rewards of the pools ``[P, M]``, NaN where there is nobody, and the groups' places in them.

    A group without a pool has its places in one of nobody.
    """
    size = len(scores[0].acd_reward)
    largest = max(size, *(group.explored.size for group in scores if group.explored is not None))
    explored = [torch.full((len(scores), largest), torch.nan, dtype=torch.float64) for _ in names]
    chosen = torch.arange(size).repeat(len(scores), 1)
    for index, group in enumerate(scores):
        if group.explored is not None:
            chosen[index] = torch.tensor(group.explored.chosen)
            for pool, name in zip(explored, names, strict=True):
                pool[index, : group.explored.size] = torch.tensor(group.explored.rewards[name])
    return explored, chosen


def unlearnable(scores: GroupScores, weights: Mapping[str, float], config: ObjectiveConfig) -> SkipReason | None:
    """Tell of one group why a minibatch could not learn from it, or None; see `rc_grpo.algorithm.rewards`.

    Args:
        scores: of the group.
        weights: of each judge by its name.
        config: how rewards are combined and groups skipped.
    """
    counted = [torch.tensor(scores.rewards[name]) for name, weight in weights.items() if weight > 0]
    acd = torch.tensor(scores.acd_reward) if config.acd_weight > 0 else None
    return nothing_to_learn(counted, acd, min_valid=config.min_valid)


def draw_anchors(run: RunShape, version: int, task_id: str, group_size: int, count: int) -> tuple[int, ...]:
    """Draw a group's anchors: a function of run seed, version and task."""
    return tuple(sample_anchors(group_size, count, derive(run.seed, "anchors", version, task_id)))


def draw_steps(
    run: RunShape, version: int, task_id: str, count: int | None, among: range | None = None
) -> tuple[int, ...]:
    """Draw the trained steps, among some or all of the run's, in order; every one of those where no count is given."""
    order = permutation(derive(run.seed, "steps", version, task_id), run.steps)
    return tuple(sorted([n for n in order if among is None or n in among][:count]))


def spread(
    work: Sequence[GroupWork], ranks: int, *, by_chain: bool, turn: int = 0, sharded: bool = False
) -> list[list[GroupWork]]:
    """Deal groups to ranks, as many to each; what is missing is work of weight 0, so that ranks stay in step.

    A group's objective is a mean over its anchors, so where groups do not come out even they are cut into as few
    pieces as leave no rank idle for more than `IDLE_SHARE`, or as leave it idle least.

    Args:
        work: of a minibatch; every group has as many anchors.
        ranks: how many.
        by_chain: groups may be cut.
        turn: of the first groups.
        sharded: every pass through the model is a collective (ZeRO 3): ranks must ask for the same ones in one order.
    """
    size = _piece(len(work), len(work[0].anchors), ranks) if by_chain else None
    pieces = list(work) if size is None else [piece for item in work for piece in _cut(item, size)]
    shares = [pieces[rank::ranks] for rank in range(ranks)]
    idle = replace(pieces[0], weight=0.0)
    even = [share + [idle] * (len(shares[0]) - len(share)) for share in shares]
    turns = [
        _at_once(together, turn + index, sharded=sharded) for index, together in enumerate(zip(*even, strict=True))
    ]
    return [list(share) for share in zip(*turns, strict=True)]


def _at_once(together: Sequence[GroupWork], turn: int, *, sharded: bool) -> list[GroupWork]:
    stale = sharded and not all(item.on_policy for item in together)
    return [replace(item, turn=turn, beside_stale=stale and item.on_policy) for item in together]


def idle_share(shares: Sequence[Sequence[GroupWork]]) -> float:
    """Return the share of the ranks' work that only keeps them in step."""
    dealt = [item.weight for share in shares for item in share]
    return dealt.count(0.0) / len(dealt)


def _piece(groups: int, anchors: int, ranks: int) -> int | None:
    """Return how many anchors a piece has; None where groups stay whole."""
    idle = {size: 1 - _full(groups * anchors // size, ranks) for size in range(anchors, 0, -1) if anchors % size == 0}
    chosen = next((size for size, share in idle.items() if share <= IDLE_SHARE), min(idle, key=lambda size: idle[size]))
    return None if chosen == anchors else chosen


def _full(pieces: int, ranks: int) -> float:
    return pieces / (math.ceil(pieces / ranks) * ranks)


def _cut(item: GroupWork, size: int) -> list[GroupWork]:
    share = item.weight * size / len(item.anchors)
    starts = range(0, len(item.anchors), size)
    return [replace(item, anchors=item.anchors[start : start + size], weight=share) for start in starts]
