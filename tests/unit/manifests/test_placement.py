"""The run that a manifest starts fits the pods that it starts, by the checks that the run itself makes."""

import copy
from math import floor
from pathlib import Path

import pytest

from deploy.cluster import Demand, PlacementError, check_placement, demands
from deploy.configs import load_config
from rc_grpo.config import PoolConfig, Resources, RunConfig
from tests.unit.manifests.documents import ENTRIES, JOBS, QUEUED, Document, cluster_spec, only, render
from tests.unit.manifests.pods import NODES, Group, groups, pods, requests, run_text, they_fit


def _config(entry: str, folder: Path) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(run_text(entry))
    return load_config(str(path))


def _group_of(demand: Demand, all_groups: list[Group]) -> Group:
    (found,) = [group for group in all_groups if group.name in demand.each.custom]
    return found


def _room(group: Group, each: Resources) -> int:
    return min(floor(group.node.get(name, 0.0) / amount) for name, amount in each.as_ray().items())


def _check(config: RunConfig, spec: Document) -> None:
    all_groups = groups(spec)
    check_placement(demands(config), [group.node for group in all_groups for _ in range(group.first)])
    for demand in demands(config):
        group = _group_of(demand, all_groups)
        if demand.count > _room(group, demand.each) * group.first:
            raise PlacementError(f"{group.first} pods of {group.name} do not hold {demand.count} actors")


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_run_fits_the_pods_that_are_there_when_it_starts(entry: str, tmp_path: Path) -> None:
    _check(_config(entry, tmp_path), cluster_spec(entry))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("group", [0, 1, 2])
def test_a_pod_too_few_is_found(entry: str, group: int, tmp_path: Path) -> None:
    spec = copy.deepcopy(cluster_spec(entry))
    spec["workerGroupSpecs"][group]["replicas"] -= 1
    with pytest.raises(PlacementError):
        _check(_config(entry, tmp_path), spec)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_actor_too_large_for_its_pods_is_found(entry: str, tmp_path: Path) -> None:
    spec = copy.deepcopy(cluster_spec(entry))
    spec["workerGroupSpecs"][2]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "7"
    with pytest.raises(PlacementError, match="learner"):
        _check(_config(entry, tmp_path), spec)


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_pool_is_bound_to_a_group_of_its_own(entry: str, tmp_path: Path) -> None:
    found = [_group_of(demand, groups(cluster_spec(entry))).name for demand in demands(_config(entry, tmp_path))]
    assert found == ["rollout", "reward", "learner"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_gpu_of_a_pod_is_left_without_an_actor(entry: str, tmp_path: Path) -> None:
    all_groups = groups(cluster_spec(entry))
    for demand in demands(_config(entry, tmp_path)):
        group = _group_of(demand, all_groups)
        assert demand.count * demand.each.num_gpus == group.first * group.node["GPU"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_pool_that_grows_or_shrinks_by_itself_finds_pods_for_it(entry: str, tmp_path: Path) -> None:
    config, all_groups = _config(entry, tmp_path), {group.name: group for group in groups(cluster_spec(entry))}
    pools: list[tuple[str, PoolConfig]] = [("rollout", config.rollout), ("reward", config.reward.judges["editscore"])]
    for name, pool in pools:
        if pool.autoscale is not None:
            room = _room(all_groups[name], pool.resources)
            assert pool.autoscale.max_workers <= all_groups[name].most * room
            assert pool.autoscale.min_workers >= all_groups[name].least * room


@pytest.mark.parametrize("entry", ENTRIES)
def test_groups_start_within_their_bounds_and_the_learners_does_not_scale(entry: str) -> None:
    for group in groups(cluster_spec(entry)):
        assert group.least <= group.first <= group.most
        if group.name == "learner":
            assert group.least == group.most


@pytest.mark.parametrize("entry", ENTRIES)
def test_all_pods_at_their_most_fit_the_stated_nodes_and_not_one_less(entry: str) -> None:
    spec, nodes = cluster_spec(entry), NODES["large" if "large" in entry else "small"]
    assert they_fit(pods(spec, "maxReplicas"), nodes)
    assert not they_fit(pods(spec, "maxReplicas"), nodes - 1)


@pytest.mark.parametrize("entry", JOBS)
def test_a_job_takes_its_configuration_from_where_it_is_mounted(entry: str) -> None:
    documents = render(entry)
    spec = only(documents, "RayJob")["spec"]
    pod = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "configMap" in volume]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    assert volume["configMap"]["name"] == only(documents, "ConfigMap")["metadata"]["name"]
    assert spec["entrypoint"] == f"python -m deploy.train --config {mount['mountPath']}/run.yaml"


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_a_run_reads_and_writes_lies_on_storage_that_its_pods_share(entry: str, tmp_path: Path) -> None:
    config, spec = _config(entry, tmp_path), cluster_spec(entry)
    templates = {"head": spec["headGroupSpec"]["template"]}
    templates |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    judge = config.reward.judges["editscore"]
    assert judge.kind == "editscore"
    assert config.data.train.path is not None
    for pod, path, writes in [
        ("head", config.output.root, True),
        ("learner", config.output.root, True),
        ("head", config.data.train.path, False),
        ("head", Path(judge.model), False),
        ("reward", Path(judge.model), False),
    ]:
        container = templates[pod]["spec"]["containers"][0]
        claims = {v["name"] for v in templates[pod]["spec"]["volumes"] if "persistentVolumeClaim" in v}
        holding = [m for m in container["volumeMounts"] if path.is_relative_to(m["mountPath"]) and m["name"] in claims]
        assert holding, f"{pod} does not see {path}"
        assert not (writes and any(mount.get("readOnly") for mount in holding))


def test_the_queued_job_fits_its_queue_and_scales_neither_itself_nor_before_it_is_admitted() -> None:
    documents = render(QUEUED)
    job, queue = only(documents, "RayJob"), only(documents, "ClusterQueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == only(documents, "LocalQueue")["metadata"]["name"]
    assert only(documents, "LocalQueue")["spec"]["clusterQueue"] == queue["metadata"]["name"]
    assert job["spec"]["suspend"]
    assert not job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    spec = job["spec"]["rayClusterSpec"]
    (resources,) = queue["spec"]["resourceGroups"]
    flavors = {document["metadata"]["name"] for document in documents if document["kind"] == "ResourceFlavor"}
    assert {flavor["name"] for flavor in resources["flavors"]} == flavors
    of_head, of_workers = (_quota(flavor) for flavor in resources["flavors"])
    assert all(amount <= of_head[name] for name, amount in requests(spec["headGroupSpec"]["template"]).items())
    workers = pods(spec, "replicas")[1:]
    assert all(sum(pod[name] for pod in workers) <= of_workers[name] for name in resources["coveredResources"])


def _quota(flavor: Document) -> dict[str, float]:
    asked = {resource["name"]: resource["nominalQuota"] for resource in flavor["resources"]}
    template = {"spec": {"containers": [{"resources": {"requests": asked}}]}}
    return {name: float(amount) for name, amount in requests(template).items()}
