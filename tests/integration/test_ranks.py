"""The shape of a learner is nothing to what is learned."""

import asyncio
import math
from pathlib import Path

import pytest
import torch

from benchmarks.ranks import batch_of, learned, trained_lora
from tests.integration.conftest import short_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("cluster")]
SHAPES = [(1, 1), (2, 0), (3, 2), (2, 3)]
"""Ranks and ZeRO stage; the first is what the others are compared with."""


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def test_one_two_and_three_ranks_learn_the_same_from_an_uneven_batch(tmp_path: Path) -> None:
    """Five groups of which one is skipped, of two anchors each: of three ranks one has less to do."""
    config = short_config(tmp_path, "ranks", "learner.learning_rate=1e-3")
    start = tmp_path / "lora"
    before = trained_lora(config, start)
    batch = batch_of(config, before, groups=5, unscored=1)

    def of(ranks: int, stage: int, name: str, **more: bool) -> tuple[dict[str, torch.Tensor], float]:
        shape = config.learner.model_copy(update={"ranks": ranks, "zero_stage": stage, **more})
        shaped = config.model_copy(update={"learner": shape})
        (weights,), report = asyncio.run(learned(shaped, start, batch, f"ranks-{name}"))
        assert [reason is None for reason in report.skipped] == [False, True, True, True, True]
        return weights, report.metrics["update/grad_norm"]

    found = {shape: of(*shape, "-".join(map(str, shape))) for shape in SHAPES}
    expected, norm = found[SHAPES[0]]
    moved = flat(expected) - flat(before)
    for (ranks, stage), (weights, its_norm) in found.items():
        # Adam makes a step of a gradient that is rounding alone, here and there.
        assert (flat(weights) - flat(expected)).norm() < 0.005 * moved.norm(), (ranks, stage)
        # DeepSpeed tells none of stage 0.
        # Three ranks have groups cut in pieces: smaller batches, whose kernels round otherwise.
        near = pytest.approx(norm, rel=1e-4 if ranks == 3 else 1e-6)
        assert math.isnan(its_norm) if stage == 0 else its_norm == near, (ranks, stage)
    again, _ = of(3, 2, "again", deterministic=True)
    assert all(torch.equal(tensor, again[name]) for name, tensor in found[3, 2][0].items())


def test_a_stale_groups_path_is_recomputed_with_the_weights_that_rolled_it_out_when_zero_3_shards_the_model(
    tmp_path: Path,
) -> None:
    """Several groups for each rank: between two of them DeepSpeed has run passes forward and back."""
    config = short_config(
        tmp_path, "stale", "learner.learning_rate=1e-3", "objective.old_path=recompute", "learner.activations=selective"
    )
    start = tmp_path / "lora"
    before = trained_lora(config, start)
    batch = batch_of(config, before, groups=4)
    found = {}
    for stage in (0, 3):
        shape = config.learner.model_copy(update={"ranks": 2, "zero_stage": stage})
        shaped = config.model_copy(update={"learner": shape})
        learnt, report = asyncio.run(learned(shaped, start, batch, f"stale-{stage}", updates=2, staleness=1))
        found[stage] = flat(learnt[1]), report.metrics["update/first_step/max_abs_log_ratio"]
    assert found[0][1] > 0
    assert found[3][1] == pytest.approx(found[0][1], rel=1e-3)
    assert (found[3][0] - found[0][0]).norm() < 0.005 * (found[0][0] - flat(before)).norm()
