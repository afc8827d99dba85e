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
    (
        "docs/quickstart.md",
        "docs/data.md",
        "docs/judge.md",
        "docs/evaluating.md",
        "docs/export.md",
        "docs/operating.md",
    ),
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
    "rc-grpo masks ",
    "rc-grpo evaluate pocket ",
    "rc-grpo edit ",
    "rc-grpo export ",
    "rc-grpo replay ",
    "rc-grpo report ",
    "rc-grpo study serve ",
    "rc-grpo study results ",
    "tensorboard ",
    r"(mkdir|cp|cat)\b",
)
"""By ``tests/integration/test_documented_commands.py``, small, as they are printed."""

GRADES = ("gated", "measured", "ran once", "not run")
"""How sure a reader may be, surest first: docs/evidence.md says what they mean. What is `EXECUTED` is measured."""

ELSEWHERE = {
    "rc-grpo (train|evaluate) flux_kontext_dev": ("not run", "wants FLUX.1-Kontext-dev's weights"),
    "rc-grpo evaluate pocket .*--(pipeline|edits) ": (
        "not run",
        "wants published weights; gated: tests/unit/editor/test_reference.py, tests/unit/evaluation/test_foreign.py",
    ),
    "(rc-grpo export .*--push |rc-grpo evaluate pocket --lora my-lab/)": (
        "not run",
        "wants an account on the Hub; gated: tests/unit/deploy/exporting/test_hub.py, on a server that speaks its API",
    ),
    "rc-grpo masks .*--by grounded": (
        "not run",
        "wants published weights; gated: tests/unit/masks/test_grounded.py, on small models of the same classes",
    ),
    "rc-grpo train pocket_vllm": ("measured", "tests/integration/test_judge_failures.py"),
    "rc-grpo doctor ": ("gated", "tests/unit/deploy/test_doctor.py, on small models"),
    "rc-grpo watch ": ("gated", "tests/browser/test_watch.py; of a real run, slow: tests/integration/test_watch.py"),
    "rc-grpo check ": ("gated", "tests/unit/deploy/test_check.py"),
    "rc-grpo judge-bench ": ("gated", "tests/unit/deploy/test_judge_bench.py, on small pairs"),
    "rc-grpo train pocket .*output.trackers": (
        "ran once",
        "wants a key and a server; gated: tests/unit/deploy/tracking",
    ),
    "rc-grpo merge-judge ": ("not run", "wants published weights; gated: tests/unit/reward merges small ones"),
    "make (train$|train JUDGE|test)": ("measured", "CI, and `make benchmark`"),
    "python -m benchmarks.hacking": ("ran once", "docs/pocket/HACKING.md says what was run"),
    "make ablation-gpu": ("ran once", "by parts: the machine was lent; gated: tests/unit/test_ablation_long.py"),
    "make ablation": ("measured", "hours; gated: tests/unit/test_ablation.py holds the figures to the runs it left"),
    "ray job submit .* flux_kontext_dev": ("not run", "wants its weights; measured with the pocket config"),
    "(ray start|ray job submit|export RAY_)": ("measured", "tests/integration/test_submission.py, on nodes of its own"),
    "(prometheus|python -m deploy.grafana.install)": ("measured", "tests/browser/test_dashboards.py"),
    "grafana-server": ("not run", "wants Grafana"),
    "kubectl ": ("not run", "wants Kubernetes; gated: tests/unit/manifests checks the files"),
    "pip install ": ("measured", "`make clean-install`"),
    "(.umask|export WANDB|export HF_TOKEN)": ("gated", "secrets; tests make their own"),
}
"""Not by that test: how sure they are, and by what or why. One of these counts before one of `EXECUTED`."""


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
    """A block of a page: commands, or Python.

    Attributes:
        page: path in the repository.
        commands: of a ``bash`` block.
        python: of a ``python`` block.
        after: the paragraph that follows.
    """

    page: str
    commands: tuple[Shown, ...] = ()
    python: str = ""
    after: str = ""

    @property
    def grade(self) -> str:
        """The least of its commands' grades."""
        found = [ELSEWHERE[way][0] for one in self.commands for way in treatments(one.command) if way in ELSEWHERE]
        return max(found, key=GRADES.index, default="measured")


def examples(page: Path) -> Iterator[Example]:
    """Yield the ``bash`` and ``python`` blocks of a page in their order."""
    name = str(page.relative_to(ROOT))
    whole = page.read_text()
    for block in _BLOCK.finditer(whole):
        indent, language, text = block.groups()
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        after = whole[block.end() :].strip().split("\n\n")[0]
        if language == "python":
            yield Example(name, python="\n".join(lines), after=after)
        else:
            yield Example(name, tuple(_commands(name, iter(lines))), after=after)


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
