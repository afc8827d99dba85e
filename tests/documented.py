"""The examples of README and docs, and what a test does with each."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quote import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("*/*/README.md")),
]
_BLOCK = re.compile(r"^( *)```(bash|python)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<'?(\w+)'?")

SITTINGS = (
    ("README.md",),
    ("docs/quickstart.md", "docs/data.md", "docs/judge.md", "docs/evaluating.md", "docs/operating.md"),
)
"""Pages whose examples one reader gives one after the other, in a fresh checkout: each may use what was left before."""

EXECUTED = (
    "make train RUN=",
    "source .venv/bin/activate",
    "rc-grpo config ",
    "rc-grpo plan ",
    "rc-grpo train pocket --",
    "until .* runs/",
    r"kill \$!",
    "rc-grpo status",
    "rc-grpo scale (rollout|reward-ground_truth) ",
    "rc-grpo train --resume runs/",
    "rc-grpo inspect ",
    "rc-grpo evaluate pocket ",
    "rc-grpo edit ",
    "rc-grpo replay ",
    "rc-grpo report ",
    "rc-grpo study serve ",
    "rc-grpo study results ",
    "tensorboard ",
    r"(mkdir|cp|cat)\b",
)
"""By ``tests/integration/test_documented_commands.py``, small, as they are printed."""

ELSEWHERE = {
    "rc-grpo (train|evaluate) flux_kontext_dev": "wants FLUX.1-Kontext-dev's weights",
    "rc-grpo train pocket_vllm": "tests/integration/test_judge_failures.py does",
    "rc-grpo check ": "tests/unit/deploy/test_check.py does",
    "rc-grpo train pocket .*output.trackers": "wants a key and a server; tests/unit/deploy/tracking",
    "rc-grpo merge-judge ": "wants published weights; tests/unit/reward merges small ones",
    "make (train$|train JUDGE|test)": "CI, and `make benchmark`",
    "make ablation": "hours; tests/unit/test_ablation.py holds the committed figures to the runs it left",
    "(ray start|ray job submit|export RAY_)": "tests/integration/test_submission.py does, on nodes of its own",
    "(prometheus|python -m deploy.grafana.install)": "tests/browser/test_dashboards.py does",
    "grafana-server": "no Grafana here",
    "kubectl ": "wants Kubernetes; tests/unit/manifests checks the files",
    "pip install ": "installs; `make clean-install`",
    "(.umask|export WANDB)": "secrets",
}
"""Not by that test, and why. One of these counts before one of `EXECUTED`."""


@dataclass(frozen=True)
class Shown:
    """A command of a page.

    Attributes:
        page: path in the repository.
        text: as it is printed, with what it reads from the page.
        words: its own, without comment, redirection and what follows it in its line.
    """

    page: str
    text: str
    words: tuple[str, ...]

    @property
    def command(self) -> str:
        """The words, to be matched with `EXECUTED` and `ELSEWHERE`."""
        return " ".join(self.words)


@dataclass(frozen=True)
class Example:
    """A block of a page: commands, or Python."""

    page: str
    commands: tuple[Shown, ...] = ()
    python: str = ""


def examples(page: Path) -> Iterator[Example]:
    """Yield the ``bash`` and ``python`` blocks of a page in their order."""
    name = str(page.relative_to(ROOT))
    for indent, language, text in _BLOCK.findall(page.read_text()):
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        if language == "python":
            yield Example(name, python="\n".join(lines))
        else:
            yield Example(name, commands=tuple(_commands(name, iter(lines))))


def shown() -> Iterator[Shown]:
    """Yield every command of every ``bash`` block."""
    for page in PAGES:
        for example in examples(page):
            yield from example.commands


def treatments(command: str) -> list[str]:
    """Return the pattern of `ELSEWHERE` that a command fits, else those of `EXECUTED`."""
    if elsewhere := [pattern for pattern in ELSEWHERE if re.match(pattern, command)]:
        return elsewhere[:1]
    return [pattern for pattern in EXECUTED if re.match(pattern, command)]


def _commands(page: str, lines: Iterator[str]) -> Iterator[Shown]:
    for line in lines:
        text = line
        while text.endswith("\\"):
            text += "\n" + next(lines)
        words = list(shlex.split(text.replace("\\\n", " "), comments=True))
        if not words:
            continue
        if here := _HERE.search(text):
            for following in lines:
                text += "\n" + following
                if following == here[1]:
                    break
        ends = [place for place, word in enumerate(words) if re.match(r"[>&|<]|\d>", word)]
        yield Shown(page, text, tuple(words[: ends[0]] if ends else words))
