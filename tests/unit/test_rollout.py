from pathlib import Path

import numpy as np
import pytest
import torch

from rc_grpo.config import load
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.loading import load_editor
from rc_grpo.messages import PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from rollout_workers.rollout import background_drift, initial_noise, prepare, roll_out

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
    assert first.states.shape == (3, 3, 64, 64)
    assert first.acd.shape == (3, len(CONFIG.rollout.acd.layers), 2)
    assert first.images.shape == (3, 128, 128, 3)


def test_the_stored_trajectory_starts_at_the_seeds_noise(editor: Editor) -> None:
    prepared = prepare(editor, TASK, CONFIG.rollout)
    group = roll_out(editor, TASK.task_id, prepared, SEEDS, POLICY, CONFIG.rollout)
    noise = initial_noise((64, 64), prepared.mask, SEEDS, CONFIG.rollout)
    assert group.states is not None
    np.testing.assert_array_equal(group.states[:, 0], noise.numpy())


def test_the_background_starts_closer_than_the_edit_region_under_rdp_only() -> None:
    mask = torch.zeros(64, dtype=torch.bool)
    mask[20:30] = True

    def spread(exploration: str) -> tuple[float, float]:
        rollout = CONFIG.rollout.model_copy(update={"exploration": exploration})
        noise = initial_noise((64, 64), mask, SEEDS, rollout)
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
