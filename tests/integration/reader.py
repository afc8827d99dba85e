"""A reader of the pages: a fresh checkout, in whose ``.venv`` the same programs do little and end.

What a page's command does not say is added behind it: sizes that take seconds, or a free port and an end. So blocks run
in a shell as they are printed, in the order of their page.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from benchmarks.quote import ROOT
from tests.documented import EXECUTED, Example, examples, treatments
from tests.integration import typed_ray
from tests.integration.ray_nodes import free_port

PROGRAMS = ("rc-grpo", "tensorboard", "python", "ray")
WATCH_TOKEN = "0123456789abcdef"
_ANSWER_DEADLINE_S = 90
SMALL = {
    "rollout.workers": "1",
    "learner.ranks": "1",
    "loop.updates": "12",
    "loop.groups_per_update": "2",
    "rollout.group_size": "3",
    "rollout.steps": "3",
    "objective.anchors": "2",
    "data.train.limit": "4",
    "data.heldout.limit": "4",
    "evaluation.tasks": "4",
    "cluster.cpus": "8",
}
"""Each update has half of the tasks in it; the pages look at update 12."""
DISTURBED = SMALL | {"loop.updates": "40"}
"""Of a run that is looked at, scaled and stopped while it trains."""
HELD_OUT = {name: SMALL[name] for name in ("rollout.workers", "data.heldout.limit", "evaluation.tasks")}
ADDED = (
    (r"train pocket --set name=(disturbed|watched)", DISTURBED, ()),
    (r"train pocket ", SMALL, ()),
    (r"evaluate pocket --compbench bench --pocket", HELD_OUT, ("--pocket", "6")),
    (r"evaluate pocket ", HELD_OUT, ()),
)
"""What is added to commands that begin so: overrides, and options."""


def checkout(folder: Path) -> None:
    """Make what a clone and ``make setup`` leave: the files, and a ``.venv`` with the programs."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in {Path(line).parts[0] for line in tracked.splitlines()}:
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in PROGRAMS:
        shim = programs / name
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.integration.reader {name} "$@"\n')
        shim.chmod(0o755)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    # Later than what it was installed from, so that make does not install.
    (folder / ".venv" / ".installed").touch()


def script(pages: Sequence[str]) -> str:
    """Return the pages' examples as a shell script that ends with the first that fails."""
    shown = (line for page in pages for example in examples(ROOT / page) for line in _lines(example))
    return "\n".join(["set -ex", *shown, ""])


def environment() -> dict[str, str]:
    """Return the environment of a reader's shell."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_", "MAKE"))}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    kept |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
    return kept | {"RC_GRPO_WATCH_TOKEN": WATCH_TOKEN}


def _lines(example: Example) -> Iterator[str]:
    for command in example.commands:
        if treatments(command)[0] in EXECUTED:
            yield command.text
    if example.python:
        yield f"python - <<'PYTHON'\n{example.python}\nPYTHON"


def _run(program: str, given: list[str]) -> None:
    real = str(Path(sys.executable).parent / program)
    if program == "ray":
        typed_ray.run(given)
        return
    if program == "tensorboard" or given[:2] == ["study", "serve"] or given[:1] == ["watch"]:
        _visit([real, *given], free_port())
        return
    said = " ".join(given) if program == "rc-grpo" else ""
    added = ((overrides, options) for pattern, overrides, options in ADDED if re.match(pattern, said))
    overrides, options = next(added, ({}, ()))
    small = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    os.execv(real, [real, *given, *small, *options])


def _visit(command: list[str], port: int) -> None:
    """Open a server's page, then end it as Ctrl-C does."""
    with subprocess.Popen([*command, "--port", str(port)]) as server:
        deadline = time.monotonic() + _ANSWER_DEADLINE_S
        try:
            while not _answers(f"http://127.0.0.1:{port}/?token={WATCH_TOKEN}"):
                assert server.poll() is None, f"{command} ended with {server.returncode}"
                assert time.monotonic() < deadline, f"{command} does not answer"
                time.sleep(0.5)
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, follow_redirects=True).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
