"""Which family an editor is of."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rc_grpo.config import EditorConfig
from rc_grpo.editor import registry
from rc_grpo.editor.files import ModelNotFoundError
from rc_grpo.editor.registry import FamilyNotFoundError, families, find


def a_family(name: str, *models: str, pipeline: str = "APipeline") -> Any:
    return SimpleNamespace(name=name, models=frozenset(models), hub_ids={f"org/{name}": "full-size"}, pipeline=pipeline)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    found = {"a": a_family("a", "small"), "b": a_family("b", "small", "large", pipeline="BPipeline")}
    monkeypatch.setattr(registry, "families", lambda: found)
    return found


def test_the_packaged_family_is_found_by_its_entry_point() -> None:
    assert families()["flux-kontext"].pipeline == "FluxKontextPipeline"
    for model in ("pocket", "full-size", "black-forest-labs/FLUX.1-Kontext-dev"):
        assert find(EditorConfig(model=model)).name == "flux-kontext"


def test_a_folder_is_of_the_family_whose_pipeline_its_index_names(installed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "BPipeline"}))
    assert find(EditorConfig(model=str(tmp_path))) is installed["b"]
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "CPipeline"}))
    with pytest.raises(FamilyNotFoundError, match=r"for CPipeline, .* installed: a \(APipeline\), b \(BPipeline\)"):
        find(EditorConfig(model=str(tmp_path)))


def test_a_name_of_two_families_has_to_be_decided(installed: dict[str, Any]) -> None:
    with pytest.raises(FamilyNotFoundError, match=r"set editor\.family to one of a, b"):
        find(EditorConfig(model="small"))
    assert find(EditorConfig(model="small", family="b")) is installed["b"]
    assert find(EditorConfig(model="large")) is installed["b"]
    assert find(EditorConfig(model="org/a")) is installed["a"]


def test_a_family_that_is_not_installed_is_named_beside_those_that_are(installed: dict[str, Any]) -> None:
    with pytest.raises(FamilyNotFoundError, match=r"editor\.family is 'c'; installed: a"):
        find(EditorConfig(model="small", family="c"))
    installed.clear()
    with pytest.raises(FamilyNotFoundError, match=r"none is installed: .*pip install"):
        find(EditorConfig(model="small", family="a"))


def test_a_model_that_is_not_named_or_not_there_is_an_error_with_the_way_out(installed: dict[str, Any]) -> None:
    with pytest.raises(ModelNotFoundError, match=r"editor\.model is not set"):
        find(EditorConfig())
    with pytest.raises(ModelNotFoundError, match="'no/such-editor' cannot be loaded"):
        find(EditorConfig(model="no/such-editor"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("json:loads", "json:dumps"), "two packages bring an editor family 'a'"),
        (("no_such_package:FAMILY",), "cannot be loaded from 'no_such_package:FAMILY'"),
        (("json:NO_SUCH_NAME",), "cannot be loaded from 'json:NO_SUCH_NAME'"),
    ],
)
def test_entry_points_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...], said: str
) -> None:
    entries = [EntryPoint("a", value, registry.GROUP) for value in values]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    families.cache_clear()
    try:
        with pytest.raises(FamilyNotFoundError, match=said):
            families()
    finally:
        families.cache_clear()


def test_finding_a_family_loads_no_model_code() -> None:
    asked = (
        "import sys\nfrom rc_grpo.config import EditorConfig\nfrom rc_grpo.editor.registry import find\n"
        "find(EditorConfig(model='pocket'))\nsys.exit('diffusers' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", asked], check=False, timeout=60).returncode == 0
