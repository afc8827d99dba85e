"""What ``ray job submit`` takes of a checkout with our runtime environment, by Ray's own packaging."""

import zipfile
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package

from tests.unit.release.test_wheel import ROOT, tracked

RUNTIME_ENV = ROOT / "deploy" / "runtime_env.yaml"
MOST_MIB = 60
"""Ray refuses a package of 512 MiB; what is sent at every submission should take seconds. Two pocket editors and
a judge are 47 of it."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("upload") / "package.zip"
    excludes = yaml.safe_load(RUNTIME_ENV.read_text())["excludes"]
    create_package(str(ROOT), target, include_gitignore=True, excludes=excludes)
    return target


def test_every_file_of_the_packages_is_uploaded_and_neither_history_nor_environment_nor_runs(package: Path) -> None:
    names = set(zipfile.ZipFile(package).namelist())
    assert set(tracked()) - names == set()
    for kept_here in (".git/", ".venv/", "runs/", "build/", "tests/", "docs/", "benchmarks/"):
        assert not [name for name in names if name.startswith(kept_here)], kept_here


def test_an_upload_is_small(package: Path) -> None:
    assert package.stat().st_size < MOST_MIB * 2**20
