"""Region preservation: only what lies outside counts, against the source; what cannot be compared is a failure."""

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from rc_grpo.config import ConfigError, RegionPreservationConfig, parse_judge
from rc_grpo.evaluation.lpips import Lpips, LpipsUnavailableError
from rc_grpo.images import encode_png
from rc_grpo.messages import EditTask
from reward_service.factory import check_judge, make_judge
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.local.region_preservation import RegionPreservationJudge
from reward_service.scoring import score_group

from .test_ground_truth import group_of

H, W = 48, 64
RNG = np.random.default_rng(0)
SOURCE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
INSIDE = np.zeros((H, W), dtype=np.uint8)
INSIDE[8:24, 16:40] = 255
TASK = EditTask("t", "other", encode_png(SOURCE), "paint it", encode_png(INSIDE))
MEASURES = ("ssim", "pixels")


def score(measure: str, *images: np.ndarray, task: EditTask = TASK) -> list[Verdict]:
    return list(RegionPreservationJudge(measure).score(task, np.stack(images)))  # type: ignore[arg-type]


def changed(amount: int, where: np.ndarray) -> np.ndarray:
    return np.where(where[..., None], np.clip(SOURCE.astype(int) + amount, 0, 255), SOURCE).astype(np.uint8)


@pytest.mark.parametrize("measure", MEASURES)
def test_whatever_is_done_inside_costs_nothing(measure: str) -> None:
    inside = INSIDE > 0
    wild = np.where(inside[..., None], RNG.integers(0, 256, SOURCE.shape), SOURCE).astype(np.uint8)
    for verdict in score(measure, SOURCE, changed(90, inside), wild):
        assert verdict.reward == pytest.approx(1.0, abs=1e-6)
        assert verdict.reason is None


@pytest.mark.parametrize("measure", MEASURES)
def test_more_change_outside_costs_more(measure: str) -> None:
    rewards = [verdict.reward for verdict in score(measure, *(changed(n, INSIDE == 0) for n in (0, 10, 40, 120)))]
    assert rewards == sorted(rewards, reverse=True)
    assert rewards[0] - rewards[-1] > 0.1


@given(st.integers(-60, 60))
def test_pixels_are_the_root_mean_square_outside(amount: int) -> None:
    edit = changed(amount, INSIDE == 0)
    (verdict,) = score("pixels", edit)
    outside = INSIDE == 0
    expected = math.sqrt((((edit.astype(float) - SOURCE) / 255)[outside] ** 2).mean())
    assert verdict.reward == pytest.approx(1 - expected, abs=1e-6)


def windows(image: np.ndarray) -> np.ndarray:
    """Gaussian means over windows of 11 pixels, of each channel."""
    return np.stack([gaussian_filter(plane, 1.5, radius=5) for plane in np.moveaxis(image, -1, 0)], axis=-1)


def test_ssim_is_that_of_windows_that_see_nothing_of_the_inside() -> None:
    one, other = SOURCE / 255, changed(120, np.ones((H, W), dtype=bool)) / 255
    means = windows(one), windows(other)
    spread = [windows(image**2) - mean**2 for image, mean in zip((one, other), means, strict=True)]
    shared = windows(one * other) - means[0] * means[1]
    ssim = (2 * means[0] * means[1] + 1e-4) * (2 * shared + 9e-4)
    ssim /= (means[0] ** 2 + means[1] ** 2 + 1e-4) * (spread[0] + spread[1] + 9e-4)
    far = np.ones((H, W), dtype=bool)
    far[8 - 5 : 24 + 5, 16 - 5 : 40 + 5] = False
    (verdict,) = score("ssim", changed(120, np.ones((H, W), dtype=bool)))
    # At the frame's border the windows are completed in ways of their own.
    assert verdict.reward == pytest.approx(ssim[far].mean(), abs=0.02)
    assert abs(ssim[far].mean() - 1) > 0.1


def test_the_source_is_resized_as_for_editing() -> None:
    small = replace(TASK, source=encode_png(np.full((2 * H, 2 * W, 3), 77, np.uint8)))
    (verdict,) = score("pixels", np.full((H, W, 3), 77, np.uint8), task=small)
    assert verdict.reward == 1.0


@pytest.mark.parametrize("measure", MEASURES)
def test_a_mask_of_the_whole_image_leaves_nothing_to_mark(measure: str) -> None:
    whole = replace(TASK, mask=encode_png(np.full((H, W), 255, np.uint8)))
    for verdict in score(measure, SOURCE, SOURCE, task=whole):
        assert math.isnan(verdict.reward)
        assert "the mask of t leaves nothing outside" in (verdict.reason or "")


def test_an_unreadable_source_is_a_failed_score_and_no_zero() -> None:
    broken = replace(TASK, source=b"nothing")
    scores = asyncio.run(score_group(RegionPreservationJudge("pixels"), broken, group_of(2)))
    assert np.isnan(scores.task_reward).all()
    assert all(scores.reasons)


def test_lpips_is_of_the_outside_alone_and_per_share_of_it() -> None:
    seen = []

    def net(edit: object, source: object) -> float:
        seen.append((edit, source))
        return float((edit - source).abs().mean())  # type: ignore[operator]

    judge = RegionPreservationJudge("lpips", Lpips(net))  # type: ignore[arg-type]
    outside = INSIDE == 0
    kept, moved = judge.score(TASK, np.stack([changed(80, ~outside), changed(-40, outside)]))
    assert kept.reward == 1.0
    edit = changed(-40, outside)
    expected = np.abs(edit.astype(float) - SOURCE)[outside].mean() / 255 * 2
    assert moved.reward == pytest.approx(1 - expected, abs=1e-5)
    assert len(seen) == 2


def test_lpips_that_cannot_be_measured_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(device: str) -> Lpips:
        raise LpipsUnavailableError("LPIPS is left out: no weights")

    monkeypatch.setattr(Lpips, "load", unavailable)
    config = parse_judge({"kind": "region_preservation", "measure": "lpips"})
    with pytest.raises(JudgeSetupError, match=r"no weights; or use measure: ssim or pixels"):
        check_judge("kept", config)
    check_judge("kept", parse_judge({"kind": "region_preservation"}))


def test_it_is_configured_by_measure_and_asks_for_no_edit(tmp_path: object) -> None:
    config = parse_judge({"kind": "region_preservation", "measure": "pixels", "weight": 0.5})
    assert isinstance(config, RegionPreservationConfig)
    assert (config.weight, config.needs, config.asks_for_the_edit) == (0.5, (), False)
    assert make_judge("w", config, tmp_path).name == "region_preservation:pixels"  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"region_preservation\.measure"):
        parse_judge({"kind": "region_preservation", "measure": "psnr"})
