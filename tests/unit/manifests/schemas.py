"""Which schema a document is checked against: Kubernetes' own where there is one, else ours (see schemas/README.md)."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.unit.manifests.documents import Document

_OURS = Path(__file__).parent / "schemas"
_KUBERNETES = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.32.0-local-strict"
_KINDS = {
    ("v1", "Namespace"): "namespace-v1",
    ("v1", "ConfigMap"): "configmap-v1",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaim-v1",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicy-networking-v1",
}
_GROUPS = {"ray.io": "ray", "kueue.x-k8s.io": "kueue", "kustomize.config.k8s.io": "kustomize"}


def errors(document: Document) -> list[str]:
    """Return what is wrong with a document, each with the place."""
    found = validator(document["apiVersion"], document["kind"]).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


@cache
def validator(api_version: str, kind: str) -> Draft202012Validator:
    """Return the validator of a kind.

    Raises:
        KeyError: there is no schema for it.
    """
    name = _KINDS.get((api_version, kind))
    if name is not None:
        schema: Any = _read(_KUBERNETES / f"{name}.json")
    else:
        group = _GROUPS[api_version.split("/")[0]]
        schema = {"$ref": f"https://rc-grpo.invalid/{group}.json#/$defs/{kind}"}
        assert kind in _read(_OURS / f"{group}.json")["$defs"], f"no schema for {api_version} {kind}"
    return Draft202012Validator(schema, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    schemas = [_read(_KUBERNETES / "_definitions.json"), *(_read(path) for path in sorted(_OURS.glob("*.json")))]
    return Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in schemas)


def _read(path: Any) -> Any:
    return json.loads(path.read_text())
