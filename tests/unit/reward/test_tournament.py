"""Who meets whom, and what shares of wins are true of: in any order, for any outcomes."""

from collections import Counter
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from reward_service.pairwise.tournament import Pair, agreed, majority, pairs, standings

QUICK = settings(max_examples=60, deadline=None)
GROUPS = st.integers(2, 16).flatmap(lambda count: st.tuples(st.just(count), st.permutations(range(count))))
OTHERS = st.sampled_from([2, 4, 6, 20])


def names(count: int) -> list[str]:
    return [f"edit {place}" for place in range(count)]


def shares(count: int, outcomes: dict[Pair, int | None]) -> list[float | None]:
    return [None if standing is None else standing.share for standing in standings(count, outcomes)]


def numbered_anew(outcomes: dict[Pair, int | None], order: list[int]) -> dict[Pair, int | None]:
    return {(order.index(first), order.index(second)): said for (first, second), said in outcomes.items()}


@st.composite
def tournaments(draw: st.DrawFn, failing: bool = False) -> tuple[int, dict[Pair, int | None]]:
    count = draw(st.integers(2, 9))
    said = st.sampled_from([1, 0, -1, None] if failing else [1, 0, -1])
    return count, {pair: draw(said) for pair in pairs(names(count), draw(OTHERS), draw(st.integers(0, 5)))}


@QUICK
@given(GROUPS, OTHERS, st.integers(0, 2**40))
def test_everyone_meets_as_many_others_each_once_and_nobody_is_cut_off(
    group: tuple[int, list[int]], others: int, seed: int
) -> None:
    count, _ = group
    chosen = pairs(names(count), others, seed)
    met = Counter(place for pair in chosen for place in pair)
    assert set(met.values()) == {min(others, count - 1)}
    assert len({frozenset(pair) for pair in chosen}) == len(chosen)
    reached = {0}
    for _ in range(count):
        reached |= {place for pair in chosen if reached & {*pair} for place in pair}
    assert reached == set(range(count))


@QUICK
@given(GROUPS, OTHERS, st.integers(0, 2**40))
def test_who_meets_whom_depends_on_what_they_are_and_not_on_their_numbers(
    group: tuple[int, list[int]], others: int, seed: int
) -> None:
    count, order = group
    known = names(count)
    moved = [known[place] for place in order]
    as_named = {frozenset(known[place] for place in pair) for pair in pairs(known, others, seed)}
    assert {frozenset(moved[place] for place in pair) for pair in pairs(moved, others, seed)} == as_named


def test_another_seed_draws_other_pairs_in_a_group_in_which_not_all_meet() -> None:
    assert pairs(names(12), 4, 0) == pairs(names(12), 4, 0) != pairs(names(12), 4, 1)


@QUICK
@given(tournaments(failing=True), st.randoms())
def test_candidates_in_another_order_get_the_same_shares(
    tournament: tuple[int, dict[Pair, int | None]], random: object
) -> None:
    count, outcomes = tournament
    order = list(range(count))
    random.shuffle(order)  # type: ignore[attr-defined]
    before, after = shares(count, outcomes), shares(count, numbered_anew(outcomes, order))
    assert after == [before[place] for place in order]


@QUICK
@given(GROUPS, OTHERS)
def test_of_a_transitive_order_the_best_has_no_superior_and_where_all_meet_shares_are_the_ranks(
    group: tuple[int, list[int]], others: int
) -> None:
    count, quality = group
    met = pairs(names(count), others, 0)
    found = shares(count, {pair: 1 if quality[pair[0]] > quality[pair[1]] else -1 for pair in met})
    assert found[quality.index(count - 1)] == 1.0
    assert found[quality.index(0)] == 0.0
    if others >= count - 1:
        assert found == [rank / (count - 1) for rank in quality]


@QUICK
@given(tournaments())
def test_shares_are_in_0_to_1_and_their_mean_is_a_half_whatever_the_outcomes(
    tournament: tuple[int, dict[Pair, int | None]],
) -> None:
    count, outcomes = tournament
    found = shares(count, outcomes)
    assert all(share is not None and 0.0 <= share <= 1.0 for share in found)
    assert abs(sum(share for share in found if share is not None) / count - 0.5) < 1e-9


def test_all_ties_are_equal_rewards() -> None:
    assert shares(5, dict.fromkeys(combinations(range(5), 2), 0)) == [0.5] * 5


def test_one_whose_comparisons_all_failed_takes_nobody_with_it() -> None:
    outcomes = {pair: None if 2 in pair else 1 for pair in combinations(range(4), 2)}
    assert shares(4, outcomes) == [1.0, 0.5, None, 0.0]


def test_a_single_comparison_that_failed_is_neither_s_win() -> None:
    outcomes: dict[Pair, int | None] = dict.fromkeys(combinations(range(4), 2), 1)
    assert shares(4, outcomes | {(1, 3): None}) == [1.0, None, 0.0, None]


def test_two_orders_that_disagree_are_a_tie_and_so_are_passes_that_do() -> None:
    assert [agreed(*said) for said in ((1, 1), (-1, -1), (1, -1), (1, 0), (0, 0))] == [1, -1, 0, 0, 0]
    assert [majority(said) for said in ((1,), (1, 1, -1), (-1, 0), (1, -1))] == [1, 1, -1, 0]
