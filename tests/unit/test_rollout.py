from pathlib import Path

import numpy as np
import pytest
import torch

from rc_grpo.algorithm import sde
from rc_grpo.config import ExploreConfig, SdeConfig, load
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.loading import load_editor
from rc_grpo.messages import PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.seeds import derive, normal
from rollout_workers.rollout import background_drift, explore, image_digests, initial_noise, prepare, roll_out

CONFIG = load(Path("deploy/configs/pocket.yaml"), ("rollout.group_size=3", "rollout.steps=2", "objective.anchors=2"))
TASK = PocketWorld("train", 30)[4]
SEEDS = RolloutSeeds.for_group(7, 0, TASK.task_id, 3)
POLICY = PolicyVersion(0, "d", 1, is_identity=True)


@pytest.fixture(scope="module")
def editor() -> Editor:
    return load_editor(CONFIG.editor, seed=0)


def test_a_rollout_is_a_function_of_task_seeds_and_policy(editor: Editor) -> None:
    prepared = prepare(editor, TASK, CONFIG.rollout)
    first, second = (roll_out(editor, TASK.task_id, prepared, SEEDS, POLICY, CONFIG.rollout) for _ in range(2))
    assert first.states is not None
    assert first.acd is not None
    np.testing.assert_array_equal(first.states, second.states)
    np.testing.assert_array_equal(first.acd, second.acd)
    np.testing.assert_array_equal(first.images, second.images)
    assert first.states.shape == (3, 3, 64, 128)
    assert first.acd.shape == (3, len(CONFIG.rollout.acd.layers), 2)
    assert first.images.shape == (3, 128, 128, 3)


def test_the_stored_trajectory_starts_at_the_seeds_noise(editor: Editor) -> None:
    prepared = prepare(editor, TASK, CONFIG.rollout)
    group = roll_out(editor, TASK.task_id, prepared, SEEDS, POLICY, CONFIG.rollout)
    noise = initial_noise((64, 128), prepared.mask, SEEDS, CONFIG.rollout)
    assert group.states is not None
    np.testing.assert_array_equal(group.states[:, 0], noise.numpy())


def test_the_background_starts_closer_than_the_edit_region_under_rdp_only() -> None:
    mask = torch.zeros(64, dtype=torch.bool)
    mask[20:30] = True

    def spread(exploration: str) -> tuple[float, float]:
        rollout = CONFIG.rollout.model_copy(update={"exploration": exploration})
        noise = initial_noise((64, 128), mask, SEEDS, rollout)
        change = (noise[1:] - noise[0]).square().mean(dim=(0, 2)).sqrt()
        return float(change[mask].mean()), float(change[~mask].mean())

    edit, background = spread("rdp")
    assert background < 0.3 * edit
    edit, background = spread("global")
    assert background == pytest.approx(edit, rel=0.1)


def test_an_evaluation_rollout_is_the_training_groups_reference(editor: Editor) -> None:
    prepared = prepare(editor, TASK, CONFIG.rollout)
    group = roll_out(editor, TASK.task_id, prepared, SEEDS, POLICY, CONFIG.rollout)
    alone = roll_out(
        editor, TASK.task_id, prepared, RolloutSeeds(SEEDS.reference), POLICY, CONFIG.rollout, keep_states=False
    )
    assert alone.states is None
    assert alone.acd is None
    assert alone.images.shape[0] == 1
    assert np.abs(alone.images[0].astype(int) - group.images[0]).max() <= 1  # another batch size, another kernel


def test_drift_is_what_changed_outside_the_mask(editor: Editor) -> None:
    prepared = prepare(editor, TASK, CONFIG.rollout)
    inside = prepared.outside == 0
    changed = np.where(inside[..., None], 255 - prepared.source, prepared.source)
    shifted = np.where(inside[..., None], prepared.source, np.clip(prepared.source.astype(int) + 51, 0, 255))
    drift = background_drift(np.stack([prepared.source, changed, shifted]).astype(np.uint8), prepared)
    assert drift[0] == drift[1] == 0.0
    assert 0.1 < drift[2] <= 0.2 + 1e-6


def test_stochastic_steps_are_taken_in_the_window_alone_with_the_noise_of_the_candidates_seeds(editor: Editor) -> None:
    changes = {"exploration": "global", "alpha_edit": 1.0, "sde": SdeConfig(level=0.5, window=1, move_every=5)}
    config = CONFIG.rollout.model_copy(update=changes)
    prepared = prepare(editor, TASK, config)
    for version, stochastic in ((4, 0), (5, 1)):
        policy = PolicyVersion(version, "d", 1, is_identity=True)
        group = roll_out(editor, TASK.task_id, prepared, SEEDS, policy, config)
        assert group.states is not None
        states, sigmas = torch.from_numpy(np.array(group.states)), torch.from_numpy(group.sigmas)
        velocity = editor.velocity(prepared.conditions)
        for n in range(2):
            with torch.no_grad():
                slope = velocity(states[:, n], float(sigmas[n]))
            if n == stochastic:
                noise = torch.stack(
                    [normal(derive(seed, "step", n), 64, 128) for seed in (SEEDS.reference, *SEEDS.deltas)]
                )
                expected = sde.mean(states[:, n], slope, sigmas, n, 0.5) + sde.spread(sigmas, n, 0.5) * noise
            else:
                expected = states[:, n] + (sigmas[n + 1] - sigmas[n]).float() * slope
            torch.testing.assert_close(states[:, n + 1], expected, rtol=1e-4, atol=1e-5)


def test_an_evaluation_is_by_the_ode_whatever_the_training(editor: Editor) -> None:
    stochastic = CONFIG.rollout.model_copy(update={"exploration": "global", "sde": SdeConfig()})
    alone = RolloutSeeds(SEEDS.reference)
    groups = [
        roll_out(editor, TASK.task_id, prepare(editor, TASK, config), alone, POLICY, config)
        for config in (CONFIG.rollout, stochastic)
    ]
    np.testing.assert_array_equal(groups[0].images, groups[1].images)


def test_a_pool_is_made_by_groups_from_the_seeds_of_all(editor: Editor) -> None:
    config = CONFIG.rollout.model_copy(update={"explore": ExploreConfig(candidates=6)})
    prepared, seeds = prepare(editor, TASK, config), RolloutSeeds.for_group(7, 0, TASK.task_id, 6)
    pool = explore(editor, TASK.task_id, prepared, seeds, POLICY, config)
    again = (seeds.of(part) for part in ((0, 1, 2), (0, 3, 4), (0, 4, 5)))
    first, *rest = (roll_out(editor, TASK.task_id, prepared, part, POLICY, config, steps=1).images for part in again)
    assert (pool.images.shape[0], len(pool.sigmas), pool.states, pool.acd) == (6, 2, None, None)
    np.testing.assert_array_equal(pool.images[:3], first)
    for images, part in zip(rest, ([3, 4], [4, 5]), strict=True):
        assert np.abs(pool.images[part].astype(int) - images[1:]).max() <= 1
    assert len(set(image_digests(pool.images))) == 6
