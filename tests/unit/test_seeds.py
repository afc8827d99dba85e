import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.messages import RolloutSeeds
from rc_grpo.seeds import derive, normal

paths = st.lists(st.one_of(st.integers(0, 10**9), st.text(max_size=8)), min_size=1, max_size=4).map(tuple)


@given(paths, paths)
def test_a_seed_is_a_function_of_its_path_and_of_nothing_else(left: tuple, right: tuple) -> None:
    assert (derive(*left) == derive(*right)) == (left == right)
    assert 0 <= derive(*left) < 2**63


def test_seeds_do_not_change_between_releases() -> None:
    assert derive(7, "delta", 3, "task-17", 5) == 3741159540575374466


def test_the_noise_of_a_group_does_not_depend_on_its_size() -> None:
    small, large = (RolloutSeeds.for_group(7, 3, "task", size) for size in (4, 9))
    assert small.reference == large.reference
    assert small.deltas == large.deltas[:3]
    assert (small.group_size, large.group_size) == (4, 9)
    assert len({small.reference, *large.deltas}) == 9


def test_noise_is_float32_and_repeats() -> None:
    first, second = normal(11, 3, 5), normal(11, 3, 5)
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    assert not torch.equal(first, normal(12, 3, 5))
