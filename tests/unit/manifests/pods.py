"""What a cluster offers: worker groups as Ray's own autoscaler reads them, pods as a node has to hold them."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ray.autoscaler._private.kuberay.autoscaling_config import _generate_available_node_types_from_ray_cr_spec
from ray.autoscaler._private.kuberay.utils import parse_quantity

from tests.unit.manifests.documents import Document, only, render

# A node of 8 GPUs as clouds rent it has more of everything but GPUs.
NODE = {"cpu": Decimal(96), "memory": parse_quantity("960Gi"), "nvidia.com/gpu": Decimal(8)}
NODES = {"small": 1, "large": 8}


@dataclass(frozen=True)
class Group:
    """A worker group: what each of its pods is to Ray, and how many there are."""

    name: str
    node: dict[str, float]
    least: int
    first: int
    most: int


def groups(spec: Document) -> list[Group]:
    """Return the worker groups, with the resources that Ray's autoscaler takes them to have."""
    types: dict[str, Any] = _generate_available_node_types_from_ray_cr_spec(spec)
    found = []
    for group in spec["workerGroupSpecs"]:
        name = group["groupName"]
        resources = {key: float(value) for key, value in types[name]["resources"].items()}
        found.append(Group(name, resources, group["minReplicas"], group["replicas"], group["maxReplicas"]))
    return found


def requests(template: Document) -> dict[str, Decimal]:
    """Return what a pod asks of a node."""
    asked = template["spec"]["containers"][0]["resources"]["requests"]
    return {name: parse_quantity(amount) for name, amount in asked.items()}


def pods(spec: Document, count: str) -> list[dict[str, Decimal]]:
    """Return what each pod of a cluster asks for; `count` names the field with each group's number of pods."""
    found = [requests(spec["headGroupSpec"]["template"])]
    for group in spec["workerGroupSpecs"]:
        found += [requests(group["template"])] * group[count]
    return found


def they_fit(asked: Iterable[dict[str, Decimal]], nodes: int) -> bool:
    """Tell whether so many nodes hold these pods, the largest placed first."""
    free = [dict(NODE) for _ in range(nodes)]
    for pod in sorted(asked, key=lambda pod: (pod.get("nvidia.com/gpu", Decimal(0)), pod["memory"]), reverse=True):
        for node in free:
            if all(node[name] >= amount for name, amount in pod.items()):
                for name, amount in pod.items():
                    node[name] -= amount
                break
        else:
            return False
    return True


def run_text(entry: str) -> str:
    """Return the run.yaml that an entry mounts for the driver."""
    text: str = only(render(entry), "ConfigMap")["data"]["run.yaml"]
    return text
