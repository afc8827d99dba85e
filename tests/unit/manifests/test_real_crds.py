"""Manifests and our own schemas against the real CRDs, where somebody has them (see schemas/README.md)."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.unit.manifests.documents import ENTRIES, Document, only, render

_FOLDER = os.environ.get("RC_GRPO_CRDS")
_OURS = Path(__file__).parent / "schemas"
_CUSTOM = ("ray.io/", "kueue.x-k8s.io/")
pytestmark = pytest.mark.skipif(_FOLDER is None, reason="RC_GRPO_CRDS names no folder of CRDs")


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_manifest_fits_the_real_crd(entry: str) -> None:
    for document in render(entry):
        if document["apiVersion"].startswith(_CUSTOM):
            check = Draft202012Validator(_strict(_crds()[document["apiVersion"], document["kind"]]))
            assert [f"{error.json_path}: {error.message}" for error in check.iter_errors(document)] == []


@pytest.mark.parametrize("kind", ["RayJob", "RayCluster", "ClusterQueue", "LocalQueue", "ResourceFlavor"])
def test_our_schema_has_no_field_that_the_real_one_lacks(kind: str) -> None:
    file = json.loads((_OURS / ("ray.json" if kind.startswith("Ray") else "kueue.json")).read_text())
    ours = file["$defs"][kind]["properties"]
    real = _crds()[ours["apiVersion"]["const"], kind]
    assert sorted(_unknown(ours["spec"], real["properties"]["spec"], file["$defs"])) == []


def test_the_real_crd_as_it_is_read_here_catches_a_misspelt_key() -> None:
    job = only(render("overlays/small/job"), "RayJob")
    (group, *_) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    group["minReplica"] = group.pop("minReplicas")
    assert not Draft202012Validator(_strict(_crds()["ray.io/v1", "RayJob"])).is_valid(job)


@cache
def _crds() -> dict[tuple[str, str], Any]:
    found = {}
    assert _FOLDER is not None
    for path in sorted(Path(_FOLDER).glob("*.yaml")):
        # As safe as safe_load, and ten times as fast on a megabyte.
        crd = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        for version in crd["spec"]["versions"]:
            name = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
            found[name] = version["schema"]["openAPIV3Schema"]
    return found


def _strict(schema: Any) -> Any:
    """Return a CRD's structural schema as JSON Schema in which a field that the API server would drop is an error."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: Document = {key: _strict(value) for key, value in schema.items() if key not in ("properties", "format")}
    if "properties" in schema:
        made["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    return made


def _unknown(ours: Document, real: Document, definitions: Document, place: str = "spec") -> set[str]:
    reference = ours.get("$ref", "")
    if reference.startswith("#"):
        ours = definitions[reference.rpartition("/")[2]]
    elif reference:
        return set()  # Kubernetes' own, as it is in the CRD.
    found = set()
    for name, value in ours.get("properties", {}).items():
        inside = f"{place}.{name}"
        known = real.get("properties", {})
        found |= _unknown(value, known[name], definitions, inside) if name in known else {inside}
    if "items" in ours:
        found |= _unknown(ours["items"], real["items"], definitions, f"{place}[]")
    return found
