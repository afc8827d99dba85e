"""A person who watches sees bar, count and time left on any screen, and in the end nothing that is no longer true."""

import io
import re

import pytest
from rich.console import Console

from deploy.watching.progress import Progress

FIGURES = {
    "reward/task_mean": 0.51234,
    "background_drift/mean": 0.043,
    "groups_skipped/share": 0.1,
    "seconds/update_total": 312.34,
}
WAITS = [
    {"who": "the learner", "what": "the groups of update 5", "seconds": 312.3, "deadline_s": 3600.0},
    {
        "who": "rollout",
        "what": "a worker that proves v12:0123abcd after it was replaced",
        "seconds": 2.3,
        "deadline_s": 9,
    },
]
BAR = r"[━╸╺ ]{10,}"


def frame(progress: Progress, out: io.StringIO) -> list[str]:
    """Draw once more; return the screen's lines as they are then."""
    # Its own thread draws ten times a second, too.
    with progress._bars.live._lock:
        out.truncate(out.seek(0))
        progress._bars.refresh()
        drawn = out.getvalue()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", drawn).split("\n")
    return [line for line in lines if line]


@pytest.fixture(params=[80, 110, 150])
def screen(request: pytest.FixtureRequest) -> tuple[Console, io.StringIO, int]:
    out = io.StringIO()
    return Console(file=out, width=request.param, force_terminal=True, color_system=None), out, request.param


def test_waits_of_any_length_take_no_room_from_bar_count_and_time_left(
    screen: tuple[Console, io.StringIO, int],
) -> None:
    console, out, width = screen
    with Progress(console) as progress:
        for done in (3, 4):
            progress.update(done, 60, FIGURES)
        progress.waiting_for(WAITS * 5)
        lines = frame(progress, out)
        assert max(map(len, lines)) <= width
        assert re.fullmatch(rf"updates +{BAR} +4/60 \d:\d\d:\d\d +(\d+:)?\d\d:\d\d", lines[0])
        assert lines[1].startswith("reward 0.512")
        assert lines[2].startswith("reward by update: 0.512 ▁▁ 0.512")
        assert lines[3].startswith("the learner waits for the groups of update 5")
        assert len(lines) == 4


def test_something_moves_during_a_held_out_evaluation(screen: tuple[Console, io.StringIO, int]) -> None:
    console, out, _ = screen
    with Progress(console) as progress:
        progress.update(4, 60, FIGURES)
        progress.waiting_for(WAITS)
        with progress.phase("held-out evaluation of v12:0123abcd", 300) as advance:
            for _ in range(40):
                advance()
            lines = frame(progress, out)
            assert re.search(rf"held-out ev.* {BAR} +40/300 \d:\d\d:\d\d +(\d+:)?\d\d:\d\d", lines[1])
        assert "held-out" not in "".join(frame(progress, out))


def test_at_the_end_nothing_is_waited_for_any_more(screen: tuple[Console, io.StringIO, int]) -> None:
    console, out, _ = screen
    with Progress(console) as progress:
        progress.update(60, 60, FIGURES)
        progress.waiting_for(WAITS)
    last = out.getvalue().split("\x1b[2K")[-1]
    assert "60/60" in last
    assert "waits" not in last


def test_a_log_file_gets_lines_and_no_bars() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=200)) as progress:
        progress.update(4, 60, FIGURES)
        progress.waiting_for(WAITS)
        progress.waiting_for([WAITS[0] | {"seconds": 0.1}])
    assert out.getvalue().startswith("update 4/60  reward 0.512")
    assert "\x1b" not in out.getvalue()


def test_a_log_file_ends_with_the_runs_curve() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=200)) as progress:
        for done, reward in ((1, 0.5), (2, 0.62), (3, 0.7)):
            progress.update(done, 3, FIGURES | {"reward/task_mean": reward})
    assert out.getvalue().rstrip().splitlines()[-1] == "reward by update: 0.500 ▁▅█ 0.700"
