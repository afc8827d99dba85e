from pathlib import Path

import pytest

from deploy.study.blinding import Blinding
from deploy.study.manifest import Manifest
from tests.unit.deploy.study.benches import gather, write_bench


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("bench")
    return folder, write_bench(folder, 5)


@pytest.fixture
def blinding(bench: tuple[Path, list[str]]) -> Blinding:
    material = gather(*bench)
    return Blinding(Manifest.of(material, secret="of a test"), material)
