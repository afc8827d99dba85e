"""Trying a target with drawn inputs for so long; what breaks its promise is shrunk, and told once."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz.mutations import in_one_line
from tests.fuzz.target import Target

ROOT = Path(__file__).parents[2]
EXAMPLES_A_ROUND = 200
MOST_CRASHES = 20
"""Of one target, after which it is left: they have one cause, or the target is wrong."""


@dataclass(frozen=True)
class Crash:
    """A broken promise.

    Attributes:
        target: its name.
        error: type and message.
        where: the innermost line of ours.
        input: shrunk.
    """

    target: str
    error: str
    where: str
    input: str


@dataclass
class Tally:
    """What came of a target."""

    inputs: int = 0
    seconds: float = 0.0
    crashes: list[Crash] = field(default_factory=list)


def fuzz(target: Target, seconds: float, database: Path, say: Callable[[str], None] = print) -> Tally:
    """Try a target until the time is over.

    Args:
        target: which one.
        seconds: for drawing and trying; shrinking comes on top.
        database: folder in which what broke a promise is kept, whole, to be tried first next time.
        say: told about each crash.
    """
    tally, known, last = Tally(), set(), [None]
    begun = time.monotonic()

    def check(drawn: Any) -> None:
        tally.inputs += 1
        last[0] = drawn
        try:
            target.check(drawn)
        except Exception as error:
            if _key(error) not in known:
                raise

    number = time.time_ns() % 2**32
    while time.monotonic() < begun + seconds and len(tally.crashes) < MOST_CRASHES:
        number += 1
        tried = settings(
            max_examples=EXAMPLES_A_ROUND,
            database=DirectoryBasedExampleDatabase(database / target.name),
            derandomize=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
        )
        try:
            seed(number)(tried(given(target.inputs)(check)))()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
            known.add(_key(error))
            crash = Crash(target.name, _in_words(error), _where(error), in_one_line(last[0]))
            tally.crashes.append(crash)
            whole = database / f"{target.name}-{len(tally.crashes)}.txt"
            whole.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text(repr(last[0]) + "\n")
            say(f"{crash.target}: {crash.error} at {crash.where}\n    {crash.input}\n    whole: {whole}")
    tally.seconds = time.monotonic() - begun
    return tally


def _key(error: BaseException) -> tuple[str, str]:
    inner = error.__cause__ or error
    return type(inner).__name__, _where(error)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and ".venv" not in frame.filename]
    product = [frame for frame in ours if "/tests/" not in frame.filename] or ours
    frame = product[-1]
    return f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}"


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:600]
