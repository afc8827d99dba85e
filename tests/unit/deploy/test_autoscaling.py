import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.run.autoscaling import wanted_workers
from rc_grpo.config import AutoscaleConfig

CONFIG = AutoscaleConfig(min_workers=2, max_workers=16)
shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("size", "waited", "busy", "wanted"),
    [
        (8, 0.5, 1.0, 12),  # half of the time waited for: half as many again
        (3, 0.2, 1.0, 4),
        (15, 0.9, 1.0, 16),
        (8, 0.05, 1.0, 8),
        (8, 0.05, 0.80, 7),  # 6.4 workers' work
        (8, 0.05, 0.87, 8),  # 6.96 workers' work: seven could barely do it
        (2, 0.0, 0.0, 2),
    ],
)
def test_a_pool_grows_by_what_is_waited_for_and_gives_up_what_is_idle(
    size: int, waited: float, busy: float, wanted: int
) -> None:
    assert wanted_workers(size, waited, busy, CONFIG) == wanted


@pytest.mark.parametrize(
    ("size", "waited", "busy", "wanted"),
    [
        (8, 0.25, 1.0, 8),  # waited for exactly as long as it may be
        (8, 0.375, 1.0, 11),
        (5, 0.375, 1.0, 6),  # 1.875 workers more, of which one whole
        (3, 0.3, 1.0, 4),  # not one whole worker, but waited for
        (5, 0.375, 0.0, 6),  # idle and waited for: it grows
        (5, 0.0, 0.75, 5),  # a worker and exactly the spare share idle
        (5, 0.0, 0.7, 4),
        (8, 0.0, 0.0, 7),  # one at a time, however idle
        (1, 0.0, 1.0, 2),
        (9, 1.0, 1.0, 12),
    ],
)
def test_its_own_thresholds_and_bounds_are_what_a_pool_goes_by(
    size: int, waited: float, busy: float, wanted: int
) -> None:
    config = AutoscaleConfig(min_workers=2, max_workers=12, grow_above=0.25, spare=0.25)
    assert wanted_workers(size, waited, busy, config) == wanted


@given(size=st.integers(1, 40), waited=shares, busy=shares)
def test_the_bounds_hold(size: int, waited: float, busy: float) -> None:
    assert CONFIG.min_workers <= wanted_workers(size, waited, busy, CONFIG) <= CONFIG.max_workers


@given(size=st.integers(2, 15), work=st.floats(0.1, 14))
def test_a_steady_load_is_met_without_swinging(size: int, work: float) -> None:
    """A pool of enough workers for a load that does not change comes to rest."""
    for _ in range(40):
        busy = min(1.0, work / size)
        size = wanted_workers(size, max(0.0, 1.0 - size / work), busy, CONFIG)
    assert wanted_workers(size, max(0.0, 1.0 - size / work), min(1.0, work / size), CONFIG) == size
    assert size >= min(work * (1 - CONFIG.grow_above), CONFIG.max_workers) - 1


def test_bounds_that_contradict_each_other_are_named() -> None:
    with pytest.raises(ValueError, match="min_workers = 3 > max_workers = 2"):
        AutoscaleConfig(min_workers=3, max_workers=2)
