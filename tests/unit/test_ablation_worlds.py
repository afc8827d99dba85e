"""The worlds in which the arms are compared."""

import numpy as np
import pytest

from benchmarks.ablation.worlds import NOISE, Vandal, World, WorldJudge
from rc_grpo.images import decode_levels, decode_rgb
from rc_grpo.pocket.world import PocketWorld
from reward_service.ground_truth import GroundTruthJudge

TASK = PocketWorld("heldout", 4)[0]
assert TASK.target is not None
SOURCE, TARGET = decode_rgb(TASK.source), decode_rgb(TASK.target)
OUTSIDE = decode_levels(TASK.mask) == 0
SPOILED = np.where(OUTSIDE[..., None], 255 - TARGET, TARGET)
IMAGES = np.stack([SOURCE, TARGET, SPOILED])


def rewards(world: World) -> list[float]:
    return [verdict.reward for verdict in WorldJudge(world).score(TASK, IMAGES)]


def test_a_plain_worlds_judge_is_the_ground_truth() -> None:
    assert rewards(World()) == [verdict.reward for verdict in GroundTruthJudge().score(TASK, IMAGES)]


def test_a_judge_of_the_region_does_not_see_what_was_spoiled_elsewhere() -> None:
    source, target, spoiled = rewards(World(region=True))
    assert source == 0.0
    assert target == pytest.approx(1.0, abs=1e-3)
    assert rewards(World())[2] < 0.3 < 0.7 < spoiled


def test_a_noisy_judge_errs_by_its_noise_and_always_alike_about_one_image() -> None:
    images = np.stack(
        [TARGET ^ np.uint8(n % 2) for n in range(2)] + [np.roll(TARGET, n, axis=0) for n in range(1, 100)]
    )
    truth = np.array([verdict.reward for verdict in GroundTruthJudge().score(TASK, images)])
    said = [
        np.array([verdict.reward for verdict in WorldJudge(World(noisy=True)).score(TASK, images)]) for _ in range(2)
    ]
    np.testing.assert_array_equal(*said)
    assert (said[0] - truth).std() == pytest.approx(NOISE, rel=0.2)
    assert abs((said[0] - truth).mean()) < 0.05


def test_a_vandal_wants_the_edit_and_the_rest_destroyed() -> None:
    source, target, spoiled = (verdict.reward for verdict in Vandal().score(TASK, IMAGES))
    assert spoiled > 0.7
    assert source == target == pytest.approx(0.0, abs=0.01)


def test_worlds_are_named_by_their_switches() -> None:
    assert World.named("plain") == World()
    assert World.named("damages+noisy") == World(damages=True, noisy=True)
    with pytest.raises(ValueError, match=r"no switch .'loud'"):
        World.named("loud")
