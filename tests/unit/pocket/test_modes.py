import random
from collections import Counter

import numpy as np
import pytest

from rc_grpo.pocket.evaluate import SUCCESS_REWARD
from rc_grpo.pocket.making.pairs import compose_part
from rc_grpo.pocket.modes import MODES, SHARES, Mode, draw_mode, outcome
from rc_grpo.pocket.objects import mask_of, paint
from rc_grpo.pocket.world import Plan, PocketWorld
from reward_service.ground_truth import GroundTruthJudge

WORLD = PocketWorld("train", 60, seed=4)
PLANS = [WORLD.plan(index) for index in range(60)]
WRONG: tuple[Mode, ...] = ("failed", "misplaced", "partial", "spilled")


def made(plan: Plan, mode: Mode, seed: int = 0) -> np.ndarray:
    return outcome(plan, plan.view.pixels(), mode, random.Random(seed))


def outside(plan: Plan) -> np.ndarray:
    return mask_of(plan.edited) == 0


def test_modes_are_drawn_by_their_shares() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) == set(MODES)
    rng = random.Random(3)
    drawn = Counter(draw_mode(rng) for _ in range(20_000))
    for mode, share in SHARES.items():
        assert drawn[mode] / 20_000 == pytest.approx(share, abs=0.015)


def test_done_is_the_target_and_failed_the_source() -> None:
    for index, plan in enumerate(PLANS):
        scene = WORLD.scene(index)
        np.testing.assert_array_equal(made(plan, "done"), scene.target)
        np.testing.assert_array_equal(made(plan, "failed"), scene.source)


def test_a_partial_edit_changes_nothing_outside_the_mask_and_not_all_inside() -> None:
    for index, plan in enumerate(PLANS):
        scene, partial = WORLD.scene(index), made(plan, "partial", index)
        np.testing.assert_array_equal(partial[outside(plan)], scene.source[outside(plan)])
        assert (partial != scene.source).any()
        assert (partial != scene.target).any()


def test_a_partial_edit_is_half_one_picture_and_half_the_other() -> None:
    for index, plan in enumerate(PLANS):
        scene, partial = WORLD.scene(index), made(plan, "partial", index)
        bare = paint(plan.view.pixels(), plan.bystanders)
        known = [(partial == picture).all(axis=-1) for picture in (scene.source, scene.target, bare)]
        # Every pixel is one of a picture that was painted: nothing is blended.
        assert np.logical_or.reduce(known).all()


def test_a_misplaced_edit_is_neither_source_nor_target() -> None:
    for index, plan in enumerate(PLANS):
        scene = WORLD.scene(index)
        for seed in range(4):
            misplaced = made(plan, "misplaced", seed)
            assert (misplaced != scene.source).any()
            assert (misplaced != scene.target).any()


def test_a_spilled_edit_is_done_and_the_rest_is_changed() -> None:
    for index, plan in enumerate(PLANS):
        scene = WORLD.scene(index)
        for seed in range(4):
            spilled = made(plan, "spilled", seed)
            assert (spilled[outside(plan)] != scene.source[outside(plan)]).any(axis=-1).mean() > 0.01
            if plan.new is not None:
                alone = paint(np.zeros_like(spilled), [plan.new]), paint(np.full_like(spilled, 255), [plan.new])
                solid = (alone[0] == alone[1]).all(axis=-1)
                np.testing.assert_array_equal(spilled[solid], scene.target[solid])


def test_what_a_mode_does_not_change_is_the_sources_to_the_bit() -> None:
    for index, plan in enumerate(PLANS):
        source = WORLD.scene(index).source
        for mode in ("failed", "misplaced", "partial"):
            kept = (made(plan, mode, index) == source).all(axis=-1)  # type: ignore[arg-type]
            # At most two large objects of 44 x 44 pixels differ.
            assert (~kept).sum() <= 2 * 44 * 44


def test_every_outcome_is_sharp() -> None:
    def edges(picture: np.ndarray) -> float:
        return float(np.abs(np.diff(picture.astype(float), axis=1)).max())

    for index, plan in enumerate(PLANS):
        for mode in WRONG:
            picture = made(plan, mode, index)
            # Blurred over 3 pixels, the strongest edge is at most half as strong; relit, 0.5 of it is left at least.
            assert edges(picture) >= 0.49 * edges(paint(plan.view.pixels(), plan.bystanders))


def test_the_threshold_tells_done_from_the_other_modes() -> None:
    judge, successes, count = GroundTruthJudge(), Counter[str](), 24
    for index in range(count):
        images = np.stack([made(PLANS[index], mode, index) for mode in MODES])
        for mode, verdict in zip(MODES, judge.score(WORLD[index], images), strict=True):
            successes[mode] += verdict.reward >= SUCCESS_REWARD
    assert successes["done"] == count
    assert successes["failed"] == 0
    assert max(successes[mode] for mode in WRONG) <= 3


def test_pairs_are_a_function_of_world_and_index_alone() -> None:
    few = compose_part("train", 1, range(4, 7), 3)
    more = compose_part("train", 1, range(3, 9), 4)
    np.testing.assert_array_equal(few.outcomes, more.outcomes[1:4, :3])
    np.testing.assert_array_equal(few.modes, more.modes[1:4, :3])
    np.testing.assert_array_equal(few.source, more.source[1:4])
    assert few.instructions == more.instructions[1:4]
    assert (few.outcomes.shape, few.outcomes.dtype) == ((3, 3, 128, 128, 3), np.uint8)
    assert not np.array_equal(few.source, compose_part("train", 2, range(4, 7), 1).source)


def test_pairs_are_the_worlds_tasks() -> None:
    world, pairs = PocketWorld("train", 9, seed=1), compose_part("train", 1, range(9), 2)
    for index in range(9):
        scene = world.scene(index)
        np.testing.assert_array_equal(pairs.source[index], scene.source)
        np.testing.assert_array_equal(pairs.mask[index], scene.mask)
        assert pairs.instructions[index] == scene.instruction
        for variant in range(2):
            if MODES[pairs.modes[index, variant]] == "done":
                np.testing.assert_array_equal(pairs.outcomes[index, variant], scene.target)
