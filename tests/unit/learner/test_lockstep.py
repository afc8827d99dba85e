"""Of a model that is sharded every pass is a collective: one rank that asks for another waits for ever."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.statistics import Statistics
from learner.updates import UPDATES
from learner.work import GroupWork, RunShape, spread
from rc_grpo.algorithm import sde
from rc_grpo.config import Algorithm, ObjectiveConfig, SdeConfig
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import CandidateGroup, Conditions, RolloutSeeds
from rc_grpo.seeds import normal, step_noise
from tests.unit.learner.conftest import group_of

SEEDS = tuple(RolloutSeeds(reference, (11, 12, 13)) for reference in (10, 21, 33, 44))
STEPS = (0, 2), (1, 2), (0, 1), (0, 2)
RUN = RunShape(0, "euler", 3, 4, 1, {}, SdeConfig(level=0.6))
NEVER_STALE: tuple[Algorithm, ...] = ("diffusion_nft", "fdfo")
STALE = (), (0,), (1, 2)
CASES = [(algorithm, stale) for algorithm in UPDATES for stale in STALE if not stale or algorithm not in NEVER_STALE]


def passes(
    policy: Denoiser,
    groups: dict[str, CandidateGroup],
    conditions: Conditions,
    share: list[GroupWork],
    steps: int = 1,
    **changes: object,
) -> list[str]:
    """What a rank asks of the model for its share, in order."""
    asked: list[str] = []

    def backward(scalar: Tensor) -> None:
        asked.append("backward")
        scalar.backward()

    config = ObjectiveConfig(**changes)  # type: ignore[arg-type]
    hook = policy.transformer.register_forward_pre_hook(
        lambda *_: asked.append("forward with gradients" if torch.is_grad_enabled() else "forward")
    )
    try:
        for work in share:
            old = None
            for _ in range(steps):
                update = UPDATES[config.algorithm](policy, groups[work.group], conditions, work, config, RUN)
                old = update.prepare(old, update.values, on_policy=work.on_policy, again=steps > 1)
                update.learn(1.0, backward, Statistics())
    finally:
        hook.remove()
    return asked


def groups_and_work(
    policy: Denoiser, conditions: Conditions, stale: tuple[int, ...] = ()
) -> tuple[dict[str, CandidateGroup], list[GroupWork]]:
    """Four groups of other seeds and trained steps."""
    sigmas, shape = policy.sigmas(3, conditions), policy.latent_shape(conditions)
    groups, work = {}, list[GroupWork]()
    for index, (seeds, steps) in enumerate(zip(SEEDS, STEPS, strict=True)):
        every = (seeds.reference, *seeds.deltas)
        noise = torch.stack([normal(seed, *shape) for seed in every])
        with torch.no_grad():
            states = sde.integrate(
                policy.velocity(conditions),
                noise,
                sigmas,
                0.6,
                range(3),
                lambda n, every=every: step_noise(every, n, *shape),  # type: ignore[misc]
            )
        groups[f"group {index}"] = replace(group_of(states, sigmas), seeds=seeds)
        advantages = np.array([0.4, -1.2, 1.5, -0.7])
        work.append(GroupWork(f"group {index}", None, advantages, (1, 3), steps, on_policy=index not in stale))
    return groups, work


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("old_path", ["stored", "recompute"])
@pytest.mark.parametrize("anchor_path", ["chain", "step"])
@pytest.mark.parametrize(("algorithm", "stale"), CASES)
def test_ranks_ask_for_the_same_passes_in_the_same_order_whatever_their_groups_are(
    policy: Denoiser,
    conditions: Conditions,
    algorithm: Algorithm,
    stale: tuple[int, ...],
    anchor_path: str,
    old_path: str,
    steps: int,
) -> None:
    groups, work = groups_and_work(policy, conditions, stale)
    shares = spread(work, 2, by_chain=UPDATES[algorithm].by_chain, turn=1, sharded=True)
    changes = {"algorithm": algorithm, "anchor_path": anchor_path, "old_path": old_path, "anchors": 2}
    first, second = (passes(policy, groups, conditions, share, steps, **changes) for share in shares)
    assert first == second
    assert first.count("backward") > 0
    assert {item.group for share in shares for item in share} == set(groups)


def test_over_as_many_turns_as_there_are_steps_every_step_is_compared_with_the_base_model(
    policy: Denoiser, conditions: Conditions
) -> None:
    groups, (work, *_) = groups_and_work(policy, conditions)
    seen = []
    for turn in range(3):
        asked = passes(policy, groups, conditions, [replace(work, turn=turn)], anchors=2)
        assert asked.count("forward") == 1
        seen.append(asked[: asked.index("forward")].count("backward"))
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize(("steps", "sweeps"), [(1, 0), (2, 2)])
def test_on_policy_a_path_is_found_anew_only_where_later_steps_compare_theirs_with_it(
    policy: Denoiser, conditions: Conditions, steps: int, sweeps: int
) -> None:
    groups, (work, *_) = groups_and_work(policy, conditions)
    changes = {"old_path": "recompute", "reference_penalty": 0.0, "anchors": 2}
    asked = passes(policy, groups, conditions, [work], steps, **changes)
    assert asked.count("forward") - steps == sweeps * RUN.steps  # One of each step's is the base model's.
