"""What is shipped: a wheel with all that the packages read, and a licence note for every file that is not code."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePath

import pytest
from typer.testing import CliRunner

from deploy.cli import app

ROOT = Path(__file__).parents[3]
PACKAGES = ("rc_grpo", "rollout_workers", "reward_service", "learner", "deploy")
FOR_OPERATORS = ("deploy/kubernetes/", "deploy/docker/", "deploy/slurm/", "deploy/vm/")
"""Used from a checkout."""
CODE = (".py", ".md")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build one from a copy, and return the files in it."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in (*tracked(), "pyproject.toml", "README.md", "LICENSE", "NOTICE.md"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(copy),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_has_every_file_that_the_packages_read_and_nothing_else(wheel: set[str]) -> None:
    needed = {name for name in tracked() if not name.startswith(FOR_OPERATORS) and not name.endswith("README.md")}
    assert needed - wheel == set()
    assert {name for name in wheel - set(tracked()) if ".dist-info/" not in name} == set()


def test_the_licences_travel_with_the_wheel(wheel: set[str]) -> None:
    assert {PurePath(name).name for name in wheel if "/licenses/" in name} == {"LICENSE", "NOTICE.md"}
    assert "rc_grpo/pocket/assets/CREDITS.md" in wheel


def patterns() -> list[str]:
    rows = [line for line in (ROOT / "NOTICE.md").read_text().splitlines() if line.startswith("| `")]
    return [pattern for row in rows for pattern in re.findall("`([^`]+)`", row.split("|")[1])]


def test_every_bundled_file_that_is_not_code_has_a_licence_note() -> None:
    data = [name for name in tracked() if not name.endswith(CODE) and not name.startswith(FOR_OPERATORS)]
    noted = {str(path.relative_to(ROOT)) for pattern in patterns() for path in ROOT.glob(pattern)}
    assert set(data) - noted == set()


def test_no_licence_note_is_about_nothing() -> None:
    assert [pattern for pattern in patterns() if not any(ROOT.glob(pattern))] == []


def test_every_photograph_has_its_author_and_licence() -> None:
    credits = (ROOT / "rc_grpo/pocket/assets/CREDITS.md").read_text()
    photographs = sorted(path.name for path in (ROOT / "rc_grpo/pocket/assets/photographs").iterdir())
    assert photographs == sorted(re.findall(r"^\| photographs/(\S+) \|", credits, re.MULTILINE))


def test_the_licence_expression_and_the_notice_name_the_licences_of_the_photographs() -> None:
    credits = (ROOT / "rc_grpo/pocket/assets/CREDITS.md").read_text()
    licences = set(re.findall(r"^\| photographs/.*\| (\S[^|]*) \| \w+ \|$", credits, re.MULTILINE))
    (note,) = re.findall(
        r"^\| `\S*photographs\S*` \|.*of each its own: ([^|]*) \|", (ROOT / "NOTICE.md").read_text(), re.MULTILINE
    )
    assert set(note.split(", ")) == licences
    expression = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert set(expression.split(" AND ")) == licences - {"public domain"} | {"Apache-2.0", "OFL-1.1"}


def test_the_command_says_the_version_that_the_changelog_begins_with() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"rc-grpo {version}"
