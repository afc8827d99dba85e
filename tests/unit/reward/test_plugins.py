"""Judges of other packages in the product's hands: made, checked, asked, ended; what they do wrong is a failure."""

import asyncio
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from rc_grpo.config import JudgePlugin, dump_judge, parse_judge
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld
from reward_service import actor
from reward_service.actor import RewardWorker
from reward_service.factory import check_judge, make_judge
from reward_service.judge import JudgeSetupError, JudgeUnavailableError, Verdict
from reward_service.probing import verdicts
from reward_service.scoring import score_group

from .test_ground_truth import TASK, group_of

EDIT: EditTask = PocketWorld("train", 1)[0]
SOURCE = decode_rgb(EDIT.source)
COLOUR = Path(__file__).parents[2] / "colour_judge"


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], JudgePlugin]]:
    """Return what makes the configuration of a judge whose class body is this text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def configured(body: str) -> JudgePlugin:
        head = "import math\nfrom rc_grpo.config import JudgePlugin\nfrom reward_service.judge import *\n"
        (tmp_path / "theirs.py").write_text(head + dedent(body))
        sys.modules.pop("theirs", None)
        found = parse_judge({"kind": "theirs:Config"})
        assert isinstance(found, JudgePlugin)
        return found

    yield configured
    sys.modules.pop("theirs", None)


SAYING = """
class Saying:
    name = "saying"
    {keyword} score(self, task, images):
        {body}
class Config(JudgePlugin):
    def make(self):
        return Saying()
"""


def asked(config: JudgePlugin) -> list[Verdict]:
    return asyncio.run(verdicts(config, EDIT, SOURCE[None], Path()))


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_foreign_judge_is_asked_plain_or_async(theirs: Callable[[str], JudgePlugin], keyword: str) -> None:
    config = theirs(SAYING.format(keyword=keyword, body="return [Verdict(float(images.mean() / 255))] * len(images)"))
    assert [verdict.reward for verdict in asked(config)] == [pytest.approx(SOURCE.mean() / 255)]


def test_a_foreign_judge_with_something_to_start_is_opened_and_closed_even_if_it_fails(
    theirs: Callable[[str], JudgePlugin],
) -> None:
    config = theirs(
        """
        did = []
        class Served:
            name = "served"
            async def open(self): did.append("open")
            async def ready(self): ...
            async def metrics(self): return ""
            async def close(self): did.append("close")
            def score(self, task, images):
                did.append("score")
                raise LookupError("lost")
        class Config(JudgePlugin):
            def make(self): return Served()
        """
    )
    (verdict,) = asked(config)
    assert math.isnan(verdict.reward)
    assert verdict.reason == "LookupError: lost"
    assert sys.modules["theirs"].did == ["open", "score", "close"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("None", "TypeError"),
        ("[None]", "returned None and no Verdict"),
        ("[0.5]", "returned 0.5 and no Verdict"),
        ("[Verdict(math.inf)]", "returned the reward inf"),
        ("[Verdict(-math.inf)]", "returned the reward -inf"),
        ("[Verdict(None)]", "a mark that is no number"),
        ("[Verdict('good')]", "a mark that is no number"),
        ("[Verdict(0.5, {'a': None})]", "a mark that is no number"),
        ("[Verdict(0.5, [1, 2])]", "a mark that is no number"),
        ("[Verdict(math.nan)]", "gave neither a reward nor a reason"),
        ("[]", "returned 0 verdicts for 1 candidates"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_a_judge_says_that_is_no_score_is_nan_with_a_reason(
    theirs: Callable[[str], JudgePlugin], said: str, reason: str
) -> None:
    judge = make_judge("w", theirs(SAYING.format(keyword="def", body=f"return {said}")), Path())
    scores = asyncio.run(score_group(judge, TASK, group_of(1), name="mine"))
    assert np.isnan(scores.task_reward).all()
    assert reason in (scores.reasons[0] or "")
    assert scores.task_reward.dtype == np.float64


def test_a_score_beside_a_failure_is_kept(theirs: Callable[[str], JudgePlugin]) -> None:
    judge = make_judge(
        "w",
        theirs(SAYING.format(keyword="def", body="return [Verdict(np.float32(0.25)), Verdict(math.inf), None]")),
        Path(),
    )
    sys.modules["theirs"].np = np  # type: ignore[attr-defined]
    scores = asyncio.run(score_group(judge, TASK, group_of(3)))
    np.testing.assert_array_equal(scores.task_reward, [0.25, np.nan, np.nan])


@pytest.mark.parametrize("error", ["JudgeUnavailableError('busy')", "JudgeSetupError('wrong key')"])
def test_a_foreign_judge_may_say_that_another_replica_or_none_can(
    theirs: Callable[[str], JudgePlugin], error: str
) -> None:
    judge = make_judge("w", theirs(SAYING.format(keyword="def", body=f"raise {error}")), Path())
    with pytest.raises((JudgeUnavailableError, JudgeSetupError), match=error.split("'")[1]):
        asyncio.run(score_group(judge, TASK, group_of(1)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("raise KeyError('weights')", r"kind 'theirs:Config' is not made: KeyError: 'weights'"),
        ("raise OSError('no such file')", r"is not made: OSError: no such file"),
        ("return None", r"returned a NoneType without name and score"),
        ("return object()", r"returned a object without name and score"),
        ("raise JudgeSetupError('bring weights')", r"^bring weights$"),
    ],
)
def test_a_judge_that_is_not_made_is_a_wrong_setup(theirs: Callable[[str], JudgePlugin], make: str, said: str) -> None:
    config = theirs(f"class Config(JudgePlugin):\n    def make(self):\n        {make}\n")
    with pytest.raises(JudgeSetupError, match=said):
        make_judge("w", config, Path())


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("raise ValueError('no weights at x; fetch them')", "judge mine: no weights at x; fetch them"),
        ("raise KeyError('x')", "judge mine: the check of kind 'theirs:Config' failed: KeyError: 'x'"),
    ],
)
def test_what_a_foreign_check_says_is_said_before_anything_starts(
    theirs: Callable[[str], JudgePlugin], check: str, said: str
) -> None:
    body = f"class Config(JudgePlugin):\n    def make(self): ...\n    def check(self):\n        {check}\n"
    with pytest.raises(JudgeSetupError) as error:
        check_judge("mine", theirs(body))
    assert str(error.value) == said


def worker(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> RewardWorker:
    monkeypatch.setattr(actor, "_session_logs", Path)
    monkeypatch.setattr(actor, "prepare_process", lambda threads: None)
    return RewardWorker("reward-mine-0", "mine", config, None)


def test_an_actor_makes_the_judge_of_plain_values(
    theirs: Callable[[str], JudgePlugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = theirs(SAYING.format(keyword="def", body="return [Verdict(0.5)] * len(images)"))
    one = worker(dump_judge(config), monkeypatch)
    assert repr(one) == "reward-mine-0(mine)"
    # Whoever looks at a run asks it while it starts.
    assert asyncio.run(one.describe())["judge"] is None
    assert asyncio.run(one.open())["judge"] == "saying"
    assert repr(one) == "reward-mine-0(saying)"
    scores = asyncio.run(one.score(TASK, group_of(2).to_arrow()))
    np.testing.assert_array_equal(scores.task_reward, [0.5, 0.5])


def test_an_actor_on_a_node_without_the_package_says_which_node(monkeypatch: pytest.MonkeyPatch) -> None:
    one = worker({"kind": "theirs_elsewhere:Config"}, monkeypatch)
    with pytest.raises(JudgeSetupError, match=r"reward-mine-0 on \S+: .*\n.*'theirs_elsewhere:Config'.*install its"):
        asyncio.run(one.open())


def test_the_example_distribution_scores_by_its_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(COLOUR))
    config = parse_judge({"kind": "colour_judge:ColourConfig", "colour": [200, 40, 40]})
    check_judge("red", config)
    images = np.stack([np.full_like(SOURCE, (200, 40, 40)), np.full_like(SOURCE, (200, 40, 104))])
    near, half = asyncio.run(verdicts(config, EDIT, images, Path()))
    assert (near.reward, half.reward) == (1.0, pytest.approx(0.5))
    grey = parse_judge({"kind": "colour_judge:ColourConfig", "colour": [9, 9, 9]})
    with pytest.raises(JudgeSetupError, match=r"judge red: colour \(9, 9, 9\) is grey"):
        check_judge("red", grey)
