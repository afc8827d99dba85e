"""What a task and the configuration hand to a rollout, and the numbers that come out of one, by hand."""

import math
import time
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rc_grpo.config import AcdConfig, MaskConfig, RolloutConfig
from rc_grpo.editor.geometry import EmptyMaskError
from rc_grpo.messages import CandidateGroup, RolloutSeeds
from rollout_workers import rollout
from rollout_workers.rollout import background_drift, diversity, initial_noise, prepare, roll_out
from tests.unit.growing import CHANNELS, HEIGHT, TOKENS, VERSION, WIDTH, Growing, a_task

SEEDS = RolloutSeeds(5, (11, 7))
INSIDE_FIRST_TOKEN = [True] + [False] * 5
ALL_TEXT, VALID_TEXT = [True] * 4, [True, True, True, False]


def rolled_out(
    editor: Growing, seeds: RolloutSeeds = SEEDS, config: dict[str, Any] | None = None, **options: Any
) -> CandidateGroup:
    settings = RolloutConfig(**({"steps": 4, "acd": AcdConfig(layers=(2, 5))} | (config or {})))
    return roll_out(editor, "t", prepare(editor, a_task(), settings), seeds, VERSION, settings, **options)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that tells its seed: every number of seed s is s."""
    monkeypatch.setattr(rollout, "normal", lambda seed, *shape: torch.full(shape, float(seed)))


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(("exploration", "outside"), [("rdp", 0.2), ("global", 0.6)])
def test_each_region_is_perturbed_by_its_own_alpha_and_all_alike_without_regions(
    exploration: str, outside: float
) -> None:
    config = RolloutConfig(exploration=exploration, alpha_edit=0.6, alpha_base=0.2)  # type: ignore[arg-type]
    mask = torch.tensor([False, True, False])
    noise = initial_noise((3, 2), mask, SEEDS, config)
    rows = [[5.0] * 3]
    for delta in (11, 7):
        rows.append([math.sqrt(1 - alpha**2) * 5 + alpha * delta for alpha in (outside, 0.6, outside)])
    torch.testing.assert_close(noise, torch.tensor(rows)[..., None].expand(3, 3, 2))
    assert noise.dtype == torch.float32


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("exploration", ["rdp", "global"])
def test_seeds_without_deltas_give_the_reference_alone(exploration: str) -> None:
    config = RolloutConfig(exploration=exploration)  # type: ignore[arg-type]
    noise = initial_noise((3, 2), torch.ones(3, dtype=torch.bool), RolloutSeeds(5), config)
    assert noise.equal(torch.full((1, 3, 2), 5.0))


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("solver", "growth"),
    [
        ("euler", [0.75] * 4),
        ("heun", [0.78125] * 3 + [0.75]),
        ("dpmpp_2m", [0.75, 0.75, 19 / 24, 0.75]),
    ],
)
def test_the_rollouts_solver_is_the_configurations(solver: str, growth: list[float]) -> None:
    """On ``dx/dsigma = x`` a step of -1/4 multiplies the state: Euler by 1 - 1/4, Heun by 1 - 1/4 + 1/32.

    The second order of ``dpmpp_2m`` is in the third step alone: half of half of what D gained, 1.5 to 2.25, on top.
    """
    group = rolled_out(Growing(), RolloutSeeds(8), {"solver": solver})
    assert group.states is not None
    expected = list(accumulate(growth, lambda state, factor: state * factor, initial=8.0))
    np.testing.assert_allclose(group.states[0, :, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("steps", "sigmas"), [(None, [1.0, 0.75, 0.5, 0.25, 0.0]), (2, [1.0, 0.5, 0.0])])
def test_a_rollout_has_the_configurations_steps_unless_it_is_told_others(
    steps: int | None, sigmas: list[float]
) -> None:
    group = rolled_out(Growing(), steps=steps)
    assert group.states is not None
    assert group.sigmas.tolist() == sigmas
    assert group.sigmas.dtype == np.float64
    assert group.states.shape == (3, len(sigmas), TOKENS, CHANNELS)


@pytest.mark.parametrize(("text_tokens", "counted"), [("valid", VALID_TEXT), ("all", ALL_TEXT)])
def test_attention_is_recorded_in_the_layers_mask_and_words_that_are_asked_for(
    text_tokens: str, counted: list[bool]
) -> None:
    editor = Growing()
    group = rolled_out(editor, config={"acd": AcdConfig(layers=(2, 5), text_tokens=text_tokens)})  # type: ignore[arg-type]
    assert editor.recorded == [((2, 5), INSIDE_FIRST_TOKEN, counted)]
    assert group.acd is not None
    assert group.acd.shape == (3, 2, 4)


@pytest.mark.parametrize(("enabled", "keep_states"), [(True, False), (False, True), (False, False)])
def test_nothing_is_recorded_in_an_evaluation_or_where_it_is_not_wanted(enabled: bool, keep_states: bool) -> None:
    editor = Growing()
    group = rolled_out(editor, config={"acd": AcdConfig(enabled=enabled)}, keep_states=keep_states)
    assert group.acd is None
    assert not editor.recorded
    assert (group.states is not None) == keep_states


@pytest.mark.usefixtures("drawn")
def test_the_group_says_what_it_was_made_of_and_its_images_are_of_the_last_states() -> None:
    editor = Growing()
    group = rolled_out(editor, worker="rollout-3")
    assert (group.task_id, group.seeds, group.policy, group.worker) == ("t", SEEDS, VERSION, "rollout-3")
    assert group.token_mask.tolist() == INSIDE_FIRST_TOKEN
    assert group.states is not None
    np.testing.assert_array_equal(group.states[:, -1], editor.decoded[0].numpy())
    assert group.states[:, 0, 5, 0].tolist() == pytest.approx([5, 5.11, 5.07], abs=1e-3)
    assert group.images[:, 0, 0, 0].tolist() == [51, 61, 71]
    np.testing.assert_allclose(group.background_drift, [0, 10 / 255, 20 / 255], rtol=1e-5)


def test_a_rollouts_time_is_told_apart_by_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 2.0, 4.0, 8.0])
    monkeypatch.setattr(rollout, "finished", lambda device: next(clock))
    assert rolled_out(Growing()).seconds == {"integrate": 1.0, "decode": 2.0, "collect": 4.0}


def test_time_on_a_gpu_is_taken_when_the_gpu_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    rollout.finished(torch.device("cpu"))
    assert not waited
    before = time.perf_counter()
    assert before <= rollout.finished(torch.device("cuda", 1)) <= time.perf_counter()
    assert waited == [torch.device("cuda", 1)]


def test_preparing_maps_the_mask_as_the_configuration_says_and_the_source_to_the_edits_size() -> None:
    editor, task = Growing(), a_task()
    half = prepare(editor, task, RolloutConfig(mask=MaskConfig(threshold=0.49)))
    assert half.mask.tolist() == INSIDE_FIRST_TOKEN
    with pytest.raises(EmptyMaskError, match="threshold"):
        prepare(editor, task, RolloutConfig(mask=MaskConfig(threshold=0.5)))
    grown = prepare(editor, task, RolloutConfig(mask=MaskConfig(dilation=1)))
    assert grown.mask.tolist() == [True, True, False, True, True, False]
    assert half.source.shape == (HEIGHT, WIDTH, 3)
    assert (half.source == 51).all()
    expected = np.ones((HEIGHT, WIDTH), dtype=np.float32)
    expected[:16, :8] = 0
    np.testing.assert_array_equal(half.outside, expected)
    assert editor.encoded == ["t"] * 3


def test_a_prepared_tasks_memory_is_that_of_all_its_arrays() -> None:
    prepared = prepare(Growing(), a_task(), RolloutConfig())
    assert prepared.nbytes == 4 * (4 * 5 + 7) + HEIGHT * WIDTH * 3 + 4 * HEIGHT * WIDTH


def seen_against(source: np.ndarray, outside: list[list[float]], images: np.ndarray) -> list[float]:
    prepared = SimpleNamespace(source=source.astype(np.uint8), outside=np.array(outside, dtype=np.float32))
    drift = background_drift(images.astype(np.uint8), prepared)  # type: ignore[arg-type]
    assert drift.dtype == np.float32
    return drift.tolist()


def test_drift_weighs_every_pixel_by_its_share_outside_the_mask() -> None:
    source = np.full((2, 2, 3), 102)
    images = np.stack([source] * 3)
    images[1, 0, 0] = 153
    images[2, 0, 1] = [0, 102, 102]
    got = seen_against(source, [[1.0, 0.25], [0.0, 0.75]], images)
    assert got == pytest.approx([0.0, math.sqrt(0.2**2 / 2), math.sqrt(0.25 * 0.4**2 / (2 * 3))], rel=1e-5)


def test_drift_in_a_sliver_of_background_is_that_slivers_and_nothing_where_all_is_inside() -> None:
    source, images = np.zeros((1, 2, 3)), np.full((1, 1, 2, 3), 255)
    assert seen_against(source, [[0.0, 0.001]], images) == pytest.approx([1.0])
    assert seen_against(source, [[0.0, 0.0]], images) == [0.0]


def test_diversity_is_the_rms_difference_to_the_mean_image() -> None:
    images = np.zeros((3, 2, 2, 3), dtype=np.uint8)
    assert diversity(images) == 0.0
    images[2] = 153
    assert diversity(images) == pytest.approx(0.6 * math.sqrt(2) / 3, rel=1e-6)
    images[2, 0] = images[2, 1, :, 1:] = 0
    assert diversity(images) == pytest.approx(0.6 * math.sqrt(2) / 3 / math.sqrt(6), rel=1e-6)
