"""What a cluster is promised to be: guarded, unprivileged, with memory for its objects, stopped in good order."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.utils import parse_quantity

from deploy.docker.prestop import PATIENCE
from rc_grpo.config import LoopConfig
from tests.unit.manifests.documents import DEPLOY, ENTRIES, JOBS, QUEUED, Document, cluster_spec, only, render
from tests.unit.manifests.pods import run_text


def _pods() -> list[Any]:
    found = []
    for entry in ENTRIES:
        spec = cluster_spec(entry)
        groups = [("head", spec["headGroupSpec"])] + [(group["groupName"], group) for group in spec["workerGroupSpecs"]]
        found += [pytest.param(group, id=f"{entry}-{name}") for name, group in groups]
    return found


def _container(group: Document) -> Document:
    (container,) = group["template"]["spec"]["containers"]
    found: Document = container
    return found


@pytest.mark.parametrize("entry", ENTRIES)
def test_ray_asks_for_a_token_from_a_secret_that_nothing_here_holds(entry: str) -> None:
    assert cluster_spec(entry)["authOptions"] == {"mode": "token", "secretName": "rc-grpo-ray-token"}
    assert "Secret" not in {document["kind"] for document in render(entry)}


@pytest.mark.parametrize("entry", ENTRIES)
def test_ray_is_the_version_that_the_package_pins(entry: str) -> None:
    dependencies = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    (pinned,) = [line for line in dependencies if line.startswith("ray[")]
    assert pinned.endswith(f"=={cluster_spec(entry)['rayVersion']}")


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_actor_is_placed_on_the_head(entry: str) -> None:
    assert cluster_spec(entry)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry != QUEUED])
def test_the_second_autoscaler_is_on_and_its_pods_are_never_restarted_in_place(entry: str) -> None:
    spec = cluster_spec(entry)
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"
    templates = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    assert {template["spec"]["restartPolicy"] for template in templates} == {"Never"}
    # Set twice, the operator refuses it.
    assert "RAY_enable_autoscaler_v2" not in yaml.safe_dump(spec)


@pytest.mark.parametrize("group", _pods())
def test_a_pod_runs_as_nobody_and_may_become_nobody_else(group: Document) -> None:
    pod = group["template"]["spec"]["securityContext"]
    assert pod["runAsNonRoot"]
    assert pod["runAsUser"] == 1000
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert _container(group)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("group", _pods())
def test_the_object_store_fits_its_memory_and_that_the_pods(group: Document) -> None:
    (volume,) = [volume for volume in group["template"]["spec"]["volumes"] if volume["name"] == "shm"]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in _container(group)["volumeMounts"]
    store = int(group["rayStartParams"]["object-store-memory"])
    limit = parse_quantity(_container(group)["resources"]["limits"]["memory"])
    assert store < parse_quantity(volume["emptyDir"]["sizeLimit"]) <= limit / 2


@pytest.mark.parametrize("group", _pods())
def test_what_a_pod_asks_for_is_what_it_may_use(group: Document) -> None:
    resources = _container(group)["resources"]
    assert resources["requests"] == resources["limits"]


@pytest.mark.parametrize("group", _pods())
def test_every_mount_has_its_volume(group: Document) -> None:
    volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in _container(group)["volumeMounts"]} == volumes


@pytest.mark.parametrize("group", _pods())
def test_a_gpu_node_lets_the_pod_in(group: Document) -> None:
    tolerated = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert tolerated in group["template"]["spec"]["tolerations"]


@pytest.mark.parametrize("group", _pods())
def test_a_pods_health_is_asked_of_ray_without_a_token(group: Document) -> None:
    for probe in ("readinessProbe", "livenessProbe"):
        assert _container(group)[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}


@pytest.mark.parametrize("group", _pods())
def test_a_pod_is_of_the_policies_that_shut_strangers_out(group: Document) -> None:
    policies = [document for document in render("overlays/small/job") if document["kind"] == "NetworkPolicy"]
    everyone = only([p for p in policies if p["metadata"]["name"] == "rc-grpo-cluster"], "NetworkPolicy")["spec"]
    assert everyone["podSelector"]["matchLabels"].items() <= group["template"]["metadata"]["labels"].items()
    assert everyone["policyTypes"] == ["Ingress", "Egress"]
    assert everyone["ingress"] == [{"from": [{"podSelector": everyone["podSelector"]}]}]


def test_jobs_come_from_labelled_namespaces_alone() -> None:
    for policy in (document for document in render("overlays/small/job") if document["kind"] == "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert all("podSelector" in peer or peer["namespaceSelector"]["matchLabels"] for peer in rule["from"])
            if any("namespaceSelector" in peer for peer in rule["from"]):
                assert {port["port"] for port in rule["ports"]} <= {8265, 8080}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_stop_leaves_time_for_the_checkpoint(entry: str) -> None:
    deadline = LoopConfig(**yaml.safe_load(run_text(entry))["loop"]).stop_deadline_s
    spec = cluster_spec(entry)
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        environment = {entry["name"]: entry.get("value") for entry in _container(group)["env"]}
        patience = float(environment[PATIENCE] or 0)
        assert deadline < patience < group["template"]["spec"]["terminationGracePeriodSeconds"]
        role = "head" if group is spec["headGroupSpec"] else "worker"
        command = _container(group)["lifecycle"]["preStop"]["exec"]["command"]
        assert command == ["python", "/opt/rc-grpo/prestop.py", role]


@pytest.mark.parametrize("entry", [*JOBS, QUEUED])
def test_a_job_that_is_tried_again_goes_on_with_the_run_of_its_name(entry: str) -> None:
    spec = only(render(entry), "RayJob")["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert re.fullmatch(r"kontext-\w+", yaml.safe_load(run_text(entry))["name"])
    assert "name=" not in spec["entrypoint"]


def test_the_two_sizes_do_not_go_on_with_each_others_runs() -> None:
    assert len({yaml.safe_load(run_text(entry))["name"] for entry in JOBS}) == len(JOBS)
