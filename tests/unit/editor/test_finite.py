"""A NaN becomes no picture that is scored: it is found in weights, in latents and in what a VAE makes of them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from deploy.configs import load_config
from deploy.errors import mendable
from rc_grpo.config import ExploreConfig
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.finite import NonFiniteEditError, non_finite_weights, require_finite
from rc_grpo.editor.loading import load_editor
from rc_grpo.editor.stock.codec_parts import decoded_in_parts
from rc_grpo.messages import PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from rollout_workers import rollout
from rollout_workers.rollout import prepare

BROKEN = st.sampled_from([math.nan, math.inf, -math.inf])
CONFIG = load_config("pocket", ("rollout.group_size=3", "rollout.steps=2", "objective.anchors=2"))
TASK = PocketWorld("train", 30)[4]
SEEDS = RolloutSeeds.for_group(7, 0, TASK.task_id, 3)
POLICY = PolicyVersion(5, "d", 1, is_identity=False)


@given(st.integers(0, 2), st.integers(0, 11), BROKEN, st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_a_weight_that_is_no_number_is_found_by_name(layer: int, place: int, value: float, dtype: torch.dtype) -> None:
    model = nn.Sequential(*(nn.Linear(3, 4, bias=False, dtype=dtype) for _ in range(3)))
    assert non_finite_weights(model) == []
    with torch.no_grad():
        model[layer].weight.view(-1)[place] = value  # type: ignore[operator, union-attr]
    assert non_finite_weights(model) == [f"{layer}.weight"]


def test_weights_without_entries_or_with_eight_bits_are_passed_over() -> None:
    model = nn.Module()
    model.none = nn.Parameter(torch.empty(0, 4))
    model.small = nn.Parameter(torch.zeros(4).to(torch.float8_e4m3fn), requires_grad=False)
    model.register_buffer("mask", torch.full((2,), -math.inf))
    assert non_finite_weights(model) == []
    assert non_finite_weights(nn.Identity()) == []


@given(st.sets(st.integers(0, 4)), BROKEN)
def test_the_candidates_that_are_no_numbers_are_counted(broken: set[int], value: float) -> None:
    made = torch.zeros(5, 2, 3)
    for candidate in broken:
        made[candidate, 1, candidate % 3] = value
    if not broken:
        require_finite(made, "these")
        return
    with pytest.raises(NonFiniteEditError, match=f"these: {len(broken)} of 5 hold a NaN or an infinity"):
        require_finite(made, "these")


def test_a_vae_that_makes_a_nan_makes_no_black_picture() -> None:
    def decode(latents: Tensor) -> Tensor:
        return latents.repeat(1, 3, 1, 1).log()

    assert decoded_in_parts(decode, torch.ones(2, 1, 4, 4), (4, 4)).dtype == torch.uint8
    with pytest.raises(NonFiniteEditError, match="VAE's pictures: 1 of 2"):
        decoded_in_parts(decode, torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)]), (4, 4))


@pytest.fixture(scope="module")
def editor() -> Editor:
    return load_editor(CONFIG.editor, seed=0)


@pytest.mark.parametrize("make", [rollout.roll_out, rollout.explore])
def test_latents_that_are_no_numbers_are_never_decoded(
    make: Any, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.rollout.model_copy(update={"explore": ExploreConfig(candidates=6, steps=1, fp8=False)})
    prepared = prepare(editor, TASK, config)
    make(editor, TASK.task_id, prepared, SEEDS, POLICY, config)

    def diverging(velocity: Any, noise: Tensor, *_: Any) -> Tensor:
        return torch.stack([noise, noise.where(torch.arange(len(noise))[:, None, None] != 1, math.nan)])

    monkeypatch.setattr(rollout.solver, "integrate", diverging)
    monkeypatch.setattr(Editor, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(NonFiniteEditError, match=rf"{POLICY} makes of {TASK.task_id}: \d of \d hold a NaN"):
        make(editor, TASK.task_id, prepared, SEEDS, POLICY, config)


def test_it_is_said_in_a_line() -> None:
    assert NonFiniteEditError in mendable()
