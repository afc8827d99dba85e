"""How often a judge prefers what people prefer: the counts by hand, and a margin searched by trying them all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.evaluation.preferences import Agreement, Compared, agreement

NAN = math.nan


def found(*pairs: tuple[int, float] | tuple[int, float, str], margin: float = 0.0) -> Agreement:
    return agreement([Compared(*pair) for pair in pairs], margin)


def test_what_both_say_is_counted_and_a_failed_score_is_in_no_share() -> None:
    result = found((1, 0.2), (1, -0.1), (-1, -0.3), (0, 0.0), (0, 0.4), (1, 0.0), (1, NAN), (0, NAN), (-1, math.inf))
    assert (result.pairs, result.failed) == (9, 3)
    assert result.accuracy == pytest.approx(3 / 6)
    assert result.accuracy_without_ties == pytest.approx(2 / 4)
    assert result.human_ties == pytest.approx(2 / 6)
    assert result.judge_ties == pytest.approx(2 / 6)


def test_within_the_margin_a_judge_has_no_preference() -> None:
    pairs = ((1, 0.2), (0, 0.1), (-1, 0.05))
    assert found(*pairs).accuracy == pytest.approx(1 / 3)
    assert found(*pairs, margin=0.1).accuracy == pytest.approx(2 / 3)
    assert found(*pairs, margin=0.2).accuracy == pytest.approx(1 / 3)
    assert found(*pairs, margin=0.1).judge_ties == pytest.approx(2 / 3)


def test_a_group_is_right_when_all_of_it_is() -> None:
    result = found(
        (1, 1, "a"),
        (1, 2, "a"),
        (-1, -1, "a"),
        (1, 1, "b"),
        (1, -1, "b"),
        (1, 1, "c"),
        (1, 1, "d"),
        (1, NAN, "d"),
        (1, 1),
    )
    assert (result.groups, result.group_accuracy) == (2, 0.5)


def test_of_no_pair_there_is_no_share() -> None:
    for result in (found(), found((1, NAN))):
        for name in (
            "accuracy",
            "accuracy_without_ties",
            "human_ties",
            "judge_ties",
            "best_accuracy",
            "group_accuracy",
        ):
            assert math.isnan(getattr(result, name))
            assert result.as_json()[name] is None


PAIRS = st.lists(
    st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([-0.5, -0.2, -0.1, 0.0, 0.1, 0.2, 0.5])), min_size=1
)


@given(PAIRS)
def test_the_best_margin_is_the_best_of_all_that_tell_pairs_apart(pairs: list[tuple[int, float]]) -> None:
    tried = {margin: found(*pairs, margin=margin).accuracy for margin in (0.0, *(abs(pair[1]) for pair in pairs))}
    result = found(*pairs)
    assert result.best_accuracy == pytest.approx(max(tried.values()))
    assert tried[result.best_margin] == pytest.approx(result.best_accuracy)


@given(PAIRS, st.sampled_from([0.0, 0.1, 0.3]))
def test_the_order_of_a_pair_does_not_matter(pairs: list[tuple[int, float]], margin: float) -> None:
    assert found(*pairs, margin=margin) == found(*((-human, -difference) for human, difference in pairs), margin=margin)
