"""Manifests as Kubernetes would get them: kustomizations read, resources gathered, JSON 6902 patches applied.

The part of kustomize that ours use, so that a machine without it tests them too; where `kubectl` is, a test compares.
"""

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Document = dict[str, Any]
DEPLOY = Path(__file__).parents[3] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
JOBS = ("overlays/small/job", "overlays/large/job")
CLUSTERS = ("overlays/small/cluster", "overlays/large/cluster")
QUEUED = "kueue"
ENTRIES = (*JOBS, *CLUSTERS, QUEUED)


def read(path: Path) -> list[Document]:
    """Return the documents of a YAML file."""
    return copy.deepcopy(_read(path))


def kustomizations() -> list[Path]:
    """Return all kustomization files."""
    return sorted(KUBERNETES.rglob("kustomization.yaml"))


def render(entry: str) -> list[Document]:
    """Return what `kubectl apply -k` of a folder below deploy/kubernetes would send."""
    return copy.deepcopy(_rendered(KUBERNETES / entry))


def only(documents: list[Document], kind: str) -> Document:
    """Return the one document of a kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def cluster_spec(entry: str) -> Document:
    """Return the RayClusterSpec that an entry comes to, of a job or by itself."""
    documents = render(entry)
    kinds = {document["kind"] for document in documents}
    spec = only(documents, "RayJob")["spec"]["rayClusterSpec"] if "RayJob" in kinds else None
    found: Document = spec or only(documents, "RayCluster")["spec"]
    return found


@cache
def _read(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


@cache
def _rendered(folder: Path) -> list[Document]:
    return list(_render(folder))


def _render(folder: Path) -> Iterator[Document]:
    (kustomization,) = read(folder / "kustomization.yaml")
    documents: list[Document] = []
    for resource in kustomization["resources"]:
        path = (folder / resource).resolve()
        documents += _render(path) if path.is_dir() else read(path)
    for patch in kustomization.get("patches", []):
        target = patch["target"]
        (operations,) = read(folder / patch["path"])
        hits = [index for index, document in enumerate(documents) if _is(document, target)]
        assert hits, f"{folder}: nothing is {target}"
        for index in hits:
            documents[index] = jsonpatch.apply_patch(documents[index], operations)
    yield from documents


def _is(document: Document, target: Document) -> bool:
    wanted = f"{target['group']}/{target['version']}", target["kind"], target["name"]
    return (document["apiVersion"], document["kind"], document["metadata"]["name"]) == wanted
