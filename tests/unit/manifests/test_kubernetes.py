"""Every manifest is what its schema says, and no misspelt key, no value of the wrong type gets past it."""

import copy
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonpatch
import pytest
import yaml

from tests.unit.manifests.documents import (
    CLUSTERS,
    ENTRIES,
    JOBS,
    KUBERNETES,
    QUEUED,
    Document,
    cluster_spec,
    kustomizations,
    only,
    read,
    render,
)
from tests.unit.manifests.schemas import errors, validator

Place = tuple[str | int, ...]
# Their keys are names that users choose.
_FREE = {"labels", "matchLabels", "nodeLabels", "data", "requests", "limits", "rayStartParams"}


def _every_kind() -> list[Any]:
    documents = render("overlays/small/cluster") + render(QUEUED) + [read(path)[0] for path in kustomizations()]
    kinds = {document["kind"]: document for document in documents}
    return [pytest.param(document, id=kind) for kind, document in kinds.items()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_manifest_fits_its_schema(entry: str) -> None:
    assert {document["kind"]: errors(document) for document in render(entry) if errors(document)} == {}


def test_every_kustomization_fits_its_schema() -> None:
    assert {str(path): errors(*read(path)) for path in kustomizations() if errors(*read(path))} == {}


def test_every_file_is_part_of_something_that_is_rendered() -> None:
    named = {
        (path.parent / name).resolve()
        for path in kustomizations()
        for kustomization in read(path)
        for name in [*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", []))]
    }
    assert {path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml"} <= named


@pytest.mark.parametrize("document", _every_kind())
def test_a_misspelt_key_anywhere_is_caught(document: Document) -> None:
    check = validator(document["apiVersion"], document["kind"])
    missed = []
    for place in _keys(document):
        wrong = copy.deepcopy(document)
        holder = _at(wrong, place[:-1])
        holder[f"{place[-1]}s"] = holder.pop(place[-1])
        if check.is_valid(wrong):
            missed.append(place)
    assert missed == []


@pytest.mark.parametrize("document", _every_kind())
def test_a_value_of_the_wrong_type_anywhere_is_caught(document: Document) -> None:
    check = validator(document["apiVersion"], document["kind"])
    missed = []
    for place in _leaves(document):
        wrong = copy.deepcopy(document)
        _at(wrong, place[:-1])[place[-1]] = [["wrong"]]
        if check.is_valid(wrong):
            missed.append(place)
    assert missed == []


_WORKER = "/spec/rayClusterSpec/workerGroupSpecs/0"


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("RayJob", "/spec/entrypoint"),
        ("RayJob", "/spec/submissionMode"),
        ("RayJob", "/spec/rayClusterSpec/headGroupSpec"),
        ("RayJob", "/spec/rayClusterSpec/headGroupSpec/rayStartParams"),
        ("RayJob", "/spec/rayClusterSpec/authOptions"),
        ("RayJob", "/spec/rayClusterSpec/authOptions/secretName"),
        ("RayJob", f"{_WORKER}/groupName"),
        ("RayJob", f"{_WORKER}/template"),
        ("RayJob", f"{_WORKER}/template/spec/containers"),
        ("RayJob", f"{_WORKER}/template/spec/containers/0/name"),
        ("RayCluster", "/spec/autoscalerOptions/version"),
        ("RayCluster", "/spec/workerGroupSpecs/2/maxReplicas"),
        ("ClusterQueue", "/spec/resourceGroups/0/flavors/0/resources/0/nominalQuota"),
        ("LocalQueue", "/spec/clusterQueue"),
        ("ResourceFlavor", "/spec"),
    ],
)
def test_a_missing_field_is_caught(kind: str, path: str) -> None:
    documents = render("overlays/small/cluster") if kind == "RayCluster" else render(QUEUED)
    chosen = next(document for document in documents if document["kind"] == kind)
    if kind == "RayJob":
        chosen = only(render("overlays/small/job"), kind)
    assert errors(jsonpatch.apply_patch(chosen, [{"op": "remove", "path": path}]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/spec/submissionMode", "HttpMode"),
        ("/spec/backoffLimit", "3"),
        ("/spec/rayClusterSpec/authOptions/mode", "disabled"),
        ("/spec/rayClusterSpec/autoscalerOptions/version", "v1"),
        (f"{_WORKER}/groupName", "Roll out"),
        (f"{_WORKER}/replicas", "3"),
        (f"{_WORKER}/rayStartParams/object-store-memory", 8589934592),
        (f"{_WORKER}/template/spec/containers/0/env/0/value", 0),
    ],
)
def test_a_value_that_the_operator_would_refuse_is_caught(path: str, value: Any) -> None:
    job = only(render("overlays/small/job"), "RayJob")
    assert errors(jsonpatch.apply_patch(job, [{"op": "replace", "path": path, "value": value}]))


def test_a_patch_of_the_wrong_group_fails_instead_of_fitting() -> None:
    job = only(render("overlays/small/job"), "RayJob")
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    groups[0], groups[1] = groups[1], groups[0]
    (operations,) = read(KUBERNETES / "overlays/large/job/groups.yaml")
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(job, operations)


@pytest.mark.parametrize(("job", "cluster"), zip(JOBS, CLUSTERS, strict=True))
def test_a_cluster_that_stays_is_made_of_what_the_jobs_is_made_of(job: str, cluster: str) -> None:
    assert cluster_spec(job) == cluster_spec(cluster)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, whose kustomize is the real one")
@pytest.mark.parametrize("entry", ENTRIES)
def test_kustomize_makes_of_it_what_is_tested_here(entry: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / entry)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0 and "unknown command" in done.stderr:
        pytest.skip("this kubectl has no kustomize")
    assert done.returncode == 0, done.stderr
    assert _sorted(list(yaml.safe_load_all(done.stdout))) == _sorted(render(entry))


def _sorted(documents: list[Document]) -> list[Document]:
    return sorted(documents, key=lambda document: (document["kind"], document["metadata"]["name"]))


def _at(tree: Any, place: Place) -> Any:
    for step in place:
        tree = tree[step]
    return tree


def _keys(tree: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(tree, dict):
        # A worker group's own `resources` names custom resources; a container's has requests and limits.
        chosen = place and (place[-1] in _FREE or (place[-1] == "resources" and "requests" not in tree))
        for key, value in tree.items():
            if not chosen:
                yield (*place, key)
            yield from _keys(value, (*place, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _keys(value, (*place, index))


def _leaves(tree: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(tree, dict | list) and tree:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, (*place, key))
    else:
        yield place
