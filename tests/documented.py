"""The shell commands of README and docs, and what a test does with each."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.quote import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("*/*/README.md")),
]
_BLOCK = re.compile(r"^( *)```bash\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

EXECUTED = (
    "rc-grpo config ",
    "rc-grpo plan ",
    "rc-grpo train pocket --",
    "rc-grpo status",
    "rc-grpo scale rollout ",
    "rc-grpo train --resume runs/my-run$",
    "rc-grpo inspect ",
    "rc-grpo evaluate pocket ",
    "rc-grpo edit ",
    "rc-grpo replay ",
    "rc-grpo report ",
    "rc-grpo study serve ",
    "rc-grpo study results ",
    "tensorboard ",
)
"""By ``tests/integration/test_documented_commands.py``, small, in a folder of its own."""

ELSEWHERE = {
    "rc-grpo (train|evaluate) flux_kontext_dev": "wants FLUX.1-Kontext-dev's weights",
    "rc-grpo train pocket_vllm": "tests/integration/test_judge_failures.py does",
    "rc-grpo check ": "tests/unit/deploy/test_check.py does",
    "rc-grpo merge-judge ": "wants published weights; tests/unit/reward merges small ones",
    "rc-grpo scale reward-editscore": "wants EditScore's weights; rollout pools are scaled the same way",
    "rc-grpo train --resume runs/my-run .*cluster.address=auto": "wants a cluster that is there already",
    "rc-grpo train --resume runs/my-run .*loop.updates": "tests/unit/deploy/test_resuming.py does",
    "make (train|test)": "CI, and `make benchmark`",
    "make ablation": "hours; tests/unit/test_ablation.py holds the committed figures to the runs it left",
    "(ray start|ray job submit|export RAY_)": "tests/integration/test_submission.py does, on nodes of its own",
    "(prometheus|python -m deploy.grafana.install)": "tests/browser/test_dashboards.py does",
    "grafana-server": "no Grafana here",
    "kubectl ": "wants Kubernetes; tests/unit/manifests checks the files",
    "pip install ": "installs; `make clean-install`",
    "(source|.umask|export WANDB)": "the shell's own, and secrets",
}
"""Not by that test, and why."""


@dataclass(frozen=True)
class Shown:
    """A command of a page."""

    page: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def shown() -> Iterator[Shown]:
    """Yield every command of every ``bash`` block, without its comment."""
    for page in PAGES:
        for block in _BLOCK.finditer(page.read_text()):
            for line in block[2].replace("\\\n", " ").splitlines():
                # Not by shlex in comments alone: a subshell's parentheses are words to it.
                if words := tuple(shlex.split(line, comments=True)):
                    yield Shown(str(page.relative_to(ROOT)), words)


def treatments(text: str) -> list[str]:
    """Return the patterns that a command fits, of both tables; an earlier one of `ELSEWHERE` wins over a later."""
    executed = [pattern for pattern in EXECUTED if re.match(pattern, text)]
    return executed + [pattern for pattern in ELSEWHERE if re.match(pattern, text)][:1]
