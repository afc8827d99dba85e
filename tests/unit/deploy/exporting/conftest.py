"""A trained run's folder, written once and copied for every test."""

import shutil
from pathlib import Path

import pytest

from tests.unit.deploy.exporting.runs import write_trained_run


@pytest.fixture(scope="package")
def written_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained_run(tmp_path_factory.mktemp("written") / "red-skies")


@pytest.fixture
def run(written_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written_run, tmp_path / "runs" / "red-skies"))
