"""The cluster launcher's file is what Ray's own launcher takes, and what runs on it fits the machines."""

import copy
import logging
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from deploy.cluster import PlacementError, check_placement, demands
from deploy.configs import load_config
from rc_grpo.config import RunConfig
from tests.unit.manifests.documents import DEPLOY, Document, read

FILE = DEPLOY / "vm/cluster.yaml"


@pytest.fixture
def machines() -> Document:
    (found,) = read(FILE)
    return found


@pytest.fixture(scope="module")
def run() -> RunConfig:
    return load_config(str(DEPLOY / "vm/run.yaml"))


def _accept(config: Document) -> Document:
    prepared: Document = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_rays_launcher_takes_it(machines: Document, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _accept(machines)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("max_worker",), 12),
        (("head_node_type",), "heads"),
        (("max_workers",), 3),
        (("provider",), {}),
        (("available_node_types", "rollout", "resource"), {"rollout": 1}),
        (("available_node_types", "rollout", "min_workers"), "4"),
        (("available_node_types", "rollout", "node_config"), None),
        (("available_node_types", "reward", "docker"), {"image": "rc-grpo/reward:0.1.0"}),
        (("docker", "container_name"), None),
        (("auth", "user"), "ubuntu"),
        (("head_start_ray_commands",), "ray start --head"),
    ],
)
def test_a_deliberate_error_is_caught(machines: Document, place: tuple[str, ...], value: Any) -> None:
    holder = machines
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    with pytest.raises((ValidationError, ValueError, AssertionError, LookupError)):
        _accept(machines)


def _nodes(machines: Document) -> list[dict[str, float]]:
    types = machines["available_node_types"]
    return [kind["resources"] for kind in types.values() for _ in range(kind.get("min_workers", 1))]


def test_the_run_fits_the_machines_that_are_always_there(machines: Document, run: RunConfig) -> None:
    check_placement(demands(run), _nodes(machines))
    assert [pool.each.custom for pool in demands(run)] == [{"rollout": 1}, {"reward": 0.5}, {"learner": 1}]


@pytest.mark.parametrize("kind", ["rollout", "reward", "learner"])
def test_a_machine_too_few_is_found(machines: Document, run: RunConfig, kind: str) -> None:
    machines["available_node_types"][kind]["min_workers"] -= 1
    with pytest.raises(PlacementError, match=kind):
        check_placement(demands(run), _nodes(machines))


def test_pools_grow_no_further_than_the_machines(machines: Document, run: RunConfig) -> None:
    assert run.rollout.autoscale is not None
    assert run.rollout.autoscale.max_workers <= machines["available_node_types"]["rollout"]["max_workers"]


def test_no_actor_is_placed_on_the_head(machines: Document) -> None:
    assert machines["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_a_token_is_asked_for_and_the_dashboard_stays_on_loopback(machines: Document) -> None:
    options = machines["docker"]["run_options"]
    (path,) = [option.partition("RAY_AUTH_TOKEN_PATH=")[2] for option in options if "RAY_AUTH_TOKEN_PATH" in option]
    assert "--env RAY_AUTH_MODE=token" in options
    assert path.rpartition("/")[0] in machines["file_mounts"]
    assert any("--dashboard-host=127.0.0.1" in command for command in machines["head_start_ray_commands"])


def test_a_stop_leaves_time_for_the_checkpoint(machines: Document, run: RunConfig) -> None:
    (patience,) = [o.partition("WAIT_TIME_S=")[2] for o in machines["docker"]["run_options"] if "WAIT_TIME_S" in o]
    assert run.loop.stop_deadline_s < float(patience)


def test_what_the_nodes_share_is_mounted_before_the_container(machines: Document, run: RunConfig) -> None:
    assert run.output.root.is_relative_to("/shared")
    assert "--volume /shared:/shared" in machines["docker"]["run_options"]
    assert " /shared" in yaml.safe_dump(machines["initialization_commands"])
