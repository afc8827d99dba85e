"""How alike two judges are: by ranks, by preferences, and only where both said something."""

import math

import pytest

from rc_grpo.evaluation.likeness import Opinions, compared, likeness


def test_ranks_preferences_and_differences_are_over_what_both_scored() -> None:
    text = Opinions({"a": (0.1, 0.2, 0.3), "b": (0.9, math.nan)}, {"a1": -0.1, "a2": 0.0, "b1": math.nan, "c": 1.0})
    logits = Opinions({"a": (0.2, 0.4, 0.3), "b": (0.8, 0.1)}, {"a1": -0.2, "a2": 0.1, "b1": 0.7})
    found = likeness(text, logits)
    assert found.images == 4
    assert found.spearman == pytest.approx(0.8)  # one pair of neighbours swapped of four: 1 - 6 * 2 / 60
    assert found.within == pytest.approx(0.5)  # of a alone: 1 - 6 * 2 / 24
    assert found.difference == pytest.approx((0.1 + 0.2 + 0.0 + 0.1) / 4)
    assert (found.pairs, found.preferences) == (2, 0.5)
    assert likeness(text, logits, margin=0.15).preferences == 0.5  # now a2 is a tie of both, a1 of one


def test_nothing_in_common_tells_nothing() -> None:
    found = compared({"x": Opinions(), "y": Opinions({"a": (1.0, 1.0)}), "z": Opinions({"a": (1.0, 2.0)})}, 0.0)
    assert set(found) == {"x/y", "x/z", "y/z"}
    assert found["x/y"].as_json() == {
        "images": 0,
        "spearman": None,
        "within": None,
        "difference": None,
        "pairs": 0,
        "preferences": None,
    }
    assert math.isnan(found["y/z"].spearman)  # a judge that says the same of all ranks nothing
