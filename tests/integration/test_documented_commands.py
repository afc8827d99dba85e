"""The examples of README and docs, run as they are printed, in the order of their page, on what those before them left.

Nothing is put there for them: `tests.integration.reader` only makes commands small, and ends servers.
"""

import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.documented import SITTINGS
from tests.integration.reader import checkout, environment, script

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(2400)]

SAID = {
    "README.md": (
        "usable tasks of data.train: tasks.png",
        "identical: every bit",
        "report.html: open it in a browser",
        "edit.png (side by side)",
        "The study is at",
        "exploration: global",
        "disturbed: update",
        "1 -> 3 workers",
    ),
    "docs/quickstart.md": (
        "runs/my-run is finished",
        "edit.png (side by side)",
        "steps: 4",
        "the first 1 of 1 usable tasks of data.train: mine.png",
        "needs the target of every task",
        "24 tasks with masks in mine/masked",
        "40 tasks with masks in mine/known",
        "masks written to mine/painted",
        "report.html: open it in a browser",
        "The study is at",
        "watched: update",
        "1 -> 3 workers",
        "1 -> 2 workers",
        "identical: every bit",
    ),
}
"""What a reader is told, by the first page that is read."""
FINISHED = {
    "README.md": ("my-run", "another", "disturbed", "filled", "again"),
    "docs/quickstart.md": ("my-run", "global", "no-acd", "another", "watched", "filled", "again", "masked"),
}
"""The runs that are there at the end."""


@pytest.mark.parametrize("pages", [pages for pages in SITTINGS if pages[0] in SAID], ids=lambda pages: pages[0])
def test_pages_can_be_typed_line_by_line(pages: tuple[str, ...], tmp_path: Path) -> None:
    checkout(tmp_path)
    (tmp_path / "typed.sh").write_text(script(pages))
    done = subprocess.run(
        ["bash", "typed.sh"],
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    said = re.sub(r"\s+", " ", done.stdout)
    assert [words for words in SAID[pages[0]] if words not in said] == [], done.stdout
    for run in FINISHED[pages[0]]:
        assert (tmp_path / "runs" / run / "summary.json").exists(), run
    made = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "edits.png", "edit.png", "bench", "study"} <= made
    assert (tmp_path / "report.html").stat().st_size > 100_000
    for picture in tmp_path.glob("*.png"):
        Image.open(picture).verify()
