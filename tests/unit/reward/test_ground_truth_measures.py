"""The four measures against the words of their definition, pixel by pixel, and their constants by closed forms."""

import numpy as np
import pytest
import torch

from rc_grpo.images import encode_png
from rc_grpo.messages import EditTask
from reward_service.ground_truth import MARKS, GroundTruthJudge, measure

HEIGHT, WIDTH = 11, 14


def window_mean(values: np.ndarray, side: int) -> np.ndarray:
    """The mean over a square window around each pixel, of what of it lies inside the image."""
    reach = side // 2
    means = np.empty_like(values)
    for row, column in np.ndindex(*values.shape):
        window = values[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        means[row, column] = window.mean()
    return means


def roughness(image: np.ndarray) -> np.ndarray:
    luminance = image.mean(axis=0)
    laplacian = np.empty_like(luminance)
    height, width = luminance.shape
    for row, column in np.ndindex(height, width):
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        near = [luminance[min(max(r, 0), height - 1), min(max(c, 0), width - 1)] for r, c in around]
        laplacian[row, column] = abs(np.mean(near) - luminance[row, column])
    return window_mean(laplacian, 5)


def contrast(image: np.ndarray) -> np.ndarray:
    luminance = image.mean(axis=0)
    variance = window_mean(luminance**2, 9) - window_mean(luminance, 9) ** 2
    return np.sqrt(np.maximum(variance, 0.0))


def rms(difference: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt((difference**2 * weights).sum() / (3 * weights.sum())))


def marks_by_hand(edited: np.ndarray, source: np.ndarray, target: np.ndarray, inside: np.ndarray) -> list[float]:
    success = np.clip(1 - rms(edited - target, inside) / rms(target - source, inside), 0, 1)
    drift = rms(edited - source, 1 - inside)
    excess = np.maximum(roughness(edited) - np.maximum(roughness(source), roughness(target)), 0)
    mine, true = contrast(edited) + 0.02, contrast(target) + 0.02
    agreement = ((np.minimum(mine, true) / np.maximum(mine, true)) * inside).sum() / inside.sum()
    rough = np.sqrt((excess**2).mean())
    return [25 * success, 25 / (1 + (drift / 0.06) ** 2), 25 * agreement, 25 / (1 + (rough / 0.02) ** 2)]


def flat(level: float, count: int = 1) -> torch.Tensor:
    return torch.full((count, 3, HEIGHT, WIDTH), level)


def half() -> torch.Tensor:
    inside = torch.zeros(1, 1, HEIGHT, WIDTH)
    inside[..., : WIDTH // 2] = 1.0
    return inside


@pytest.mark.parametrize("seed", range(4))
def test_each_mark_is_its_definition_pixel_by_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.uniform(0.2, 0.8, (2, 3, HEIGHT, WIDTH))
    inside = np.clip(rng.uniform(-0.5, 1.5, (HEIGHT, WIDTH)), 0, 1)
    closeness = np.array([0.9, 0.4, -0.5])[:, None, None, None]
    edited = target * closeness + source * (1 - closeness) + rng.normal(0, 0.03, (3, 3, HEIGHT, WIDTH))
    planes = [torch.from_numpy(part).float() for part in (edited, source[None], target[None], inside[None, None])]
    marks = measure(*planes)
    assert marks.shape == (3, 4)
    expected = [marks_by_hand(image, source, target, inside) for image in edited]
    np.testing.assert_allclose(marks.numpy(), expected, rtol=2e-4, atol=2e-3)
    assert marks[2, 0] == 0.0


def test_six_hundredths_of_drift_outside_cost_half_the_marks_of_over_editing() -> None:
    source, inside = flat(0.5), half()
    edited = source + 0.06 * (1 - inside)
    assert measure(edited, source, flat(0.8), inside)[0, 1] == pytest.approx(12.5, abs=1e-3)
    assert measure(source + 0.3 * inside, source, flat(0.8), inside)[0, 1] == pytest.approx(25.0)


def test_half_the_way_to_the_target_is_half_the_success() -> None:
    source, target, inside = flat(0.2), flat(0.8), half()
    edited = torch.cat([source + share * 0.6 * inside for share in (0.0, 0.5, 1.0, 1.5, 3.0, -1.0)])
    success = measure(edited, source, target, inside)[:, 0]
    assert success.tolist() == pytest.approx([0.0, 12.5, 25.0, 12.5, 0.0, 0.0], abs=1e-3)


def test_where_nothing_was_asked_only_nothing_succeeds() -> None:
    source, inside = flat(0.5), half()
    success = measure(torch.cat([source, source + 0.1]), source, source, inside)[:, 0]
    assert success.tolist() == [25.0, 0.0]


def test_with_a_full_mask_nothing_can_be_over_edited() -> None:
    assert measure(flat(0.9), flat(0.1), flat(0.5), torch.ones(1, 1, HEIGHT, WIDTH))[0, 1] == 25.0


def test_a_smoother_image_than_the_target_has_no_artifacts() -> None:
    rough = flat(0.5) + 0.2 * (torch.arange(WIDTH) % 2)
    for source, target in ((rough, flat(0.5)), (flat(0.5), rough)):
        assert measure(torch.cat([flat(0.5), rough]), source, target, half())[:, 3].tolist() == [25.0, 25.0]
    assert measure(rough, flat(0.5), flat(0.5), half())[0, 3] < 2.0


def test_a_patch_that_is_busier_than_the_target_is_as_unnatural_as_a_duller_one() -> None:
    dull, busy = flat(0.5), flat(0.5) + 0.2 * (torch.arange(WIDTH) % 2)
    natural = [measure(edited, dull, target, half())[0, 2].item() for edited, target in ((dull, busy), (busy, dull))]
    assert natural[0] == pytest.approx(natural[1], rel=1e-5)
    assert natural[0] < 6.0


def test_the_judge_compares_at_the_size_of_the_edits_within_the_mask_and_names_the_marks_in_order() -> None:
    rng = np.random.default_rng(0)
    source, target, edit = rng.integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    inside[2:7, 3:12] = 255
    task = EditTask("t", "add", encode_png(source), "", encode_png(inside), encode_png(target))
    (verdict,) = GroundTruthJudge().score(task, edit[None])
    assert tuple(verdict.subscores) == MARKS == ("success", "over_editing", "naturalness", "artifacts")
    planes = [part.transpose(2, 0, 1) / 255 for part in (edit, source, target)]
    expected = marks_by_hand(*planes, inside / 255)
    assert list(verdict.subscores.values()) == pytest.approx(expected, rel=2e-4, abs=2e-3)


def test_without_a_target_every_candidate_has_a_verdict_of_failure() -> None:
    task = EditTask("bare", "add", b"", "", b"")
    verdicts = GroundTruthJudge().score(task, np.zeros((4, 2, 2, 3), np.uint8))
    assert [verdict.reason for verdict in verdicts] == ["task bare has no target image to compare with"] * 4
    assert all(np.isnan(verdict.reward) for verdict in verdicts)
