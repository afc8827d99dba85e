"""What a judge says, whatever it is, is held by everything that it is put into: Arrow, JSON, boards, screens, pages."""

import asyncio
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from wandb.proto.wandb_internal_pb2 import HistoryItem

from deploy.errors import plain_errors
from deploy.report.templating import environment
from deploy.watching.progress import Progress
from rc_grpo.data import read_experience, write_experience
from rc_grpo.data.log.experience import ScoredCandidates
from rc_grpo.messages import REASON_CHARACTERS, EditTask, GroupScores
from rc_grpo.storable import storable
from reward_service.contract import REASONING_CHARACTERS, parse_answer
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.panel import merged
from reward_service.scoring import score_group
from tests.unit.nasty import NASTY

from .test_ground_truth import TASK, group_of

torch.set_num_threads(1)
EACH = pytest.mark.parametrize("name", NASTY)


class Saying:
    name = "saying"

    def __init__(self, verdict: Verdict | Exception) -> None:
        self._verdict = verdict

    def score(self, task: EditTask, images: np.ndarray) -> Sequence[Verdict]:
        if isinstance(self._verdict, Exception):
            raise self._verdict
        return [self._verdict] * len(images)


def scored(verdict: Verdict | Exception) -> GroupScores:
    return asyncio.run(score_group(Saying(verdict), TASK, group_of(2)))


def reason(name: str) -> str:
    """What becomes of a text that a judge gives as its reason."""
    (said, _) = scored(Verdict(0.5, reason=NASTY[name])).reasons
    assert said is not None
    return said


@EACH
def test_an_answer_s_reasoning_is_made_fit_where_it_is_parsed(name: str) -> None:
    parsed = parse_answer(json.dumps({"reasoning": NASTY[name], "score": [20, 18]}))
    assert parsed.score == (20.0, 18.0)
    assert parsed.reasoning == storable(NASTY[name], REASONING_CHARACTERS)
    assert len(parsed.reasoning) <= REASONING_CHARACTERS


@EACH
@pytest.mark.parametrize("failure", [False, True])
def test_arrow_and_parquet_hold_it(tmp_path: Path, name: str, failure: bool) -> None:
    scores = scored(ValueError(NASTY[name]) if failure else Verdict(0.5, reason=NASTY[name]))
    several = merged({"a": scores, "b": scored(Verdict.failure(NASTY[name]))}, {"a": 1.0, "b": 1.0})
    for message in (scores, several):
        assert all(said is None or len(said) <= REASON_CHARACTERS for said in message.reasons)
        assert GroupScores.from_arrow(message.to_arrow()).reasons == message.reasons
        group = group_of(2)
        rows = ScoredCandidates(TASK, group, message, np.zeros(2), 1)
        file = tmp_path / "update.parquet"
        write_experience(file, [rows], "scores")
        assert read_experience(file).column("reason").to_pylist() == list(message.reasons)


@EACH
def test_json_and_protobuf_hold_it(tmp_path: Path, name: str) -> None:
    said = reason(name)
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"reason": said}, ensure_ascii=False) + "\n", encoding="utf-8")
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"reason": said}
    item = HistoryItem.FromString(HistoryItem(key="reason", value_json=said).SerializeToString())
    assert item.value_json == said


@EACH
def test_tensorboard_holds_it(tmp_path: Path, name: str) -> None:
    said = reason(name)
    with SummaryWriter(str(tmp_path)) as board:
        board.add_text("reason", said, 1)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Tensors("reason/text_summary")
    assert event.tensor_proto.string_val[0].decode() == said


def on_screen(show: Any, *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None, soft_wrap=True)
    show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@EACH
def test_a_screen_shows_it_and_takes_no_order_from_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = reason(name)[:150]
    with pytest.raises(SystemExit), plain_errors():
        raise JudgeSetupError(said)
    assert capsys.readouterr().err == f"error: {said}\n".expandtabs()
    shown = on_screen(lambda console: Progress(console).say(said), terminal=False)
    assert shown == f"{said}\n".expandtabs()
    waits = [{"who": said, "what": "it", "seconds": 100.0, "deadline_s": None}]

    def bars(console: Console) -> None:
        with Progress(console) as progress, progress.waiting(said):
            progress.waiting_for(waits)

    assert "\x9b" not in on_screen(bars, terminal=True)


@EACH
def test_a_page_shows_it_and_runs_nothing_of_it(name: str) -> None:
    said = reason(name)
    templates = environment("deploy.report")
    template = templates.from_string('<p title="{{ it }}">{{ it }}</p><script>{{ it | tojson }}</script>')
    page = template.render(it=said)
    page.encode("utf-8")
    assert page.count("<") == page.count(">") == 4
    assert json.loads(page.partition("<script>")[2].removesuffix("</script>")) == said


def test_who_failed_and_why_is_told_of_the_failed_alone_and_never_missing() -> None:
    scores = GroupScores(
        "task", "j", np.array([0.5, np.nan, np.nan]), np.zeros(3), reasons=("well done", "cut off", None)
    )
    assert scores.failures == ("cut off",)
    assert scored(Verdict(math.nan)).failures == ("judge saying gave neither a reward nor a reason",) * 2
    assert scored(Verdict(0.5, reason="well done")).failures == ()
