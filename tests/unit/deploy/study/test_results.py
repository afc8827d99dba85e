import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.study.manifest import VOTES, Manifest
from deploy.study.results import Results, tally
from deploy.study.votes import Vote
from rc_grpo.evaluation.intervals import over_participants, sign_test, wilson
from tests.unit.deploy.study.benches import MODELS, gather

SHOWN = ("a", "b", "c")


def votes_of(participant: str, answers: str) -> list[Vote]:
    """Answers: a letter a trial, '-' for not sure."""
    return [Vote(participant, f"add/{i}", None if x == "-" else x, SHOWN, "") for i, x in enumerate(answers)]


def test_shares_are_of_all_trials_and_not_sure_has_its_own_row() -> None:
    results = tally(SHOWN, 10, votes_of("ada", "aab-bab-"))
    assert [(s.answer, s.won, s.of) for s in results.shares] == [("a", 3, 8), ("b", 3, 8), ("c", 0, 8), (None, 2, 8)]
    assert sum(s.share or 0 for s in results.shares) == pytest.approx(1)
    assert (results.trials, results.possible, results.method) == (8, 10, "Wilson")
    assert [(d.first, d.second, d.wins, d.losses) for d in results.duels] == [
        ("a", "b", 3, 3),
        ("a", "c", 3, 0),
        ("b", "c", 3, 0),
    ]
    assert results.places == (3, 3, 0)


def test_one_participant_s_interval_is_wilson_s_and_p_is_the_exact_binomial() -> None:
    # Worked out by hand: z = 1.96, eight of ten; nine of ten heads have 2 (1 + 10) / 2^10.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 7) == pytest.approx((0.0, 0.3543), abs=1e-4)
    assert sign_test(9, 1) == pytest.approx(22 / 1024)
    assert sign_test(5, 5) == 1.0
    assert wilson(0, 0) is None
    assert sign_test(0, 0) is None


def test_thousands_of_votes_have_a_p_value() -> None:
    # The normal approximation: 2 (1 - Phi((5200 - 5000 - 0.5) / 50)).
    assert sign_test(5200, 4800) == pytest.approx(6.6e-5, rel=0.02)
    assert sign_test(9000, 0) == 0.0


def test_participants_who_disagree_widen_the_interval_and_those_who_agree_do_not() -> None:
    of = [20] * 12
    low, high = over_participants([20, 0] * 6, of) or (0, 0)
    plain = wilson(120, 240) or (0, 0)
    assert high - low > 3 * (plain[1] - plain[0])
    same = over_participants([10] * 12, of) or (0, 0)
    assert same == pytest.approx((0.5, 0.5))


def test_the_interval_over_participants_holds_the_truth_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(50):
        of = rng.integers(5, 15, 25)
        low, high = over_participants(rng.binomial(of, rng.beta(3, 6, 25)).tolist(), of.tolist()) or (0, 0)
        held += low <= 1 / 3 <= high
    # 47.5 expected; binomial spread 1.5, and percentile intervals of 25 clusters fall a little short.
    assert held >= 41


def test_the_same_votes_give_the_same_intervals() -> None:
    votes = votes_of("ada", "aab") + votes_of("bob", "cba") + votes_of("cyd", "-aa")
    assert tally(SHOWN, 3, votes) == tally(SHOWN, 3, votes[::-1])
    assert tally(SHOWN, 3, votes).method == "bootstrap over participants"


def test_pairs_that_nobody_decided_have_no_share() -> None:
    results = tally(SHOWN, 3, votes_of("ada", "---"))
    assert all((d.share, d.interval, d.p) == (None, None, None) for d in results.duels)
    nobody = tally(SHOWN, 3, [])
    assert nobody.notes == ("Nobody has voted yet.",)
    assert all((s.share, s.interval) == (None, None) for s in nobody.shares)
    two = tally(SHOWN, 1, votes_of("ada", "a") + votes_of("bob", "-"))
    assert two.duels[0].interval == (1.0, 1.0)


def test_results_are_printed_and_written_with_the_paper_s_beside(bench: tuple[Path, list[str]], tmp_path: Path) -> None:
    manifest = Manifest.found(tmp_path, gather(*bench))
    tasks = list(manifest.examples)
    votes = [Vote("ada", task, "okapi" if i else None, MODELS, "") for i, task in enumerate(tasks)]
    votes += [Vote("bob", tasks[0], "zebra", MODELS, "")]
    (tmp_path / VOTES).write_text("".join(json.dumps(v.as_json()) + "\n" for v in votes) + '{"participant": "to')
    said = CliRunner().invoke(app, ["study", "results", str(tmp_path), "--json", str(tmp_path / "out.json")])
    assert said.exit_code == 0, said.output
    for expected in ("66.7%", "not sure", "RC-GRPO-Editing 34.0%, FLUX.1-Kontext-dev 24.2%", "unfinished", "6 of 10"):
        assert expected in said.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["shares"][0]["answer"] == "okapi"
    assert written["shares"][0]["share"] == pytest.approx(4 / 6)
    assert written["participants"] == {"ada": 5, "bob": 1}
    assert written["paper"]["shares"]["RC-GRPO-Editing"] == 0.34


def test_a_vote_about_something_else_is_named(bench: tuple[Path, list[str]], tmp_path: Path) -> None:
    Manifest.found(tmp_path, gather(*bench))
    (tmp_path / VOTES).write_text(json.dumps(Vote("ada", "add/other", None, MODELS, "").as_json()) + "\n")
    with pytest.raises(ValueError, match=r"'ada' for add/other.*is not of this study"):
        Results.read(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("results", "/nowhere"), "/nowhere is no study's folder"),
        (("serve", "--tasks", "pocket", "--edits", "a=/nowhere", "--out", "{}"), "there is no edit in /nowhere"),
        (("serve", "--tasks", "nowhere", "{edits}", "--out", "{}"), "no config file 'nowhere'"),
        (("serve", "--tasks", "{bench}", "{edits}", "--out", "{}", "--host", "203.0.113.1"), "cannot listen at"),
    ],
)
def test_what_the_keeper_can_mend_is_said_without_a_traceback(
    bench: tuple[Path, list[str]], tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    given: list[str] = []
    for argument in arguments:
        if argument == "{edits}":
            given += [part for pair in bench[1] for part in ("--edits", pair)]
        else:
            given.append(argument.replace("{bench}", str(bench[0])).replace("{}", str(tmp_path / "study")))
    said = CliRunner().invoke(app, ["study", *given])
    assert said.exit_code == 2, said.output
    assert says in said.output.replace("\n", "")
    assert "Traceback" not in said.output
