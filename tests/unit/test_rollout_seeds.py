"""Which seeds a group has, against the digest as the design has it: of what a number is for, and of nothing else."""

import hashlib

import pytest

from rc_grpo.messages import RolloutSeeds


def digest(*path: int | str) -> int:
    text = "\x1f".join(f"{'int' if isinstance(part, int) else 'str'}:{part}" for part in path)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") // 2


@pytest.mark.parametrize(
    ("run", "iteration", "task"), [(7, 3, "täsk-17"), (8, 3, "täsk-17"), (7, 4, "täsk-17"), (7, 3, "b")]
)
def test_a_groups_seeds_are_digests_of_run_iteration_task_and_candidate(run: int, iteration: int, task: str) -> None:
    seeds = RolloutSeeds.for_group(run, iteration, task, 4)
    assert seeds.reference == digest(run, "reference", iteration, task)
    assert seeds.deltas == tuple(digest(run, "delta", iteration, task, candidate) for candidate in (1, 2, 3))
    assert seeds.group_size == 4


def test_another_run_iteration_or_task_shares_no_noise() -> None:
    groups = [RolloutSeeds.for_group(*of, 4) for of in ((7, 3, "a"), (8, 3, "a"), (7, 4, "a"), (7, 3, "b"))]
    assert len({seed for group in groups for seed in (group.reference, *group.deltas)}) == 16


def test_a_group_of_one_is_the_reference_alone() -> None:
    assert RolloutSeeds.for_group(7, 3, "a", 1) == RolloutSeeds(digest(7, "reference", 3, "a"))
    assert RolloutSeeds(5).deltas == ()
    assert RolloutSeeds(5).group_size == 1
