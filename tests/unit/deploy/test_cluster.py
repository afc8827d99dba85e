import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch._inductor.runtime.runtime_utils import cache_dir

from deploy import cluster
from deploy.cluster import Demand, PlacementError, UnreachableError, check_placement, reach, visit
from deploy.configs import load_config
from rc_grpo.config import Resources

EIGHT_GPUS = {"CPU": 64.0, "GPU": 8.0, "node:10.0.0.1": 1.0}


def test_a_run_that_fits_passes() -> None:
    check_placement(
        [Demand("rollout", 6, Resources(num_gpus=1)), Demand("learner", 2, Resources(num_gpus=1))], [EIGHT_GPUS]
    )


def test_too_many_actors_fail_with_the_numbers() -> None:
    asked = [Demand("rollout", 7, Resources(num_gpus=1)), Demand("learner", 2, Resources(num_gpus=1))]
    with pytest.raises(PlacementError, match=r"GPU: 9 asked, 8 in the cluster") as error:
        check_placement(asked, [EIGHT_GPUS])
    assert "rollout    7 x (CPU 1, GPU 1)" in str(error.value)
    assert "rollout.workers" in str(error.value)


def test_an_actor_that_fits_on_no_node_is_named_even_if_the_sum_would_do() -> None:
    with pytest.raises(PlacementError, match="no node holds one learner actor"):
        check_placement([Demand("learner", 1, Resources(num_gpus=4))], [{"CPU": 8.0, "GPU": 2.0}] * 4)


def test_a_custom_resource_that_nobody_has_is_named() -> None:
    with pytest.raises(PlacementError, match="reward_node: 1 asked, 0 in the cluster"):
        check_placement([Demand("reward", 1, Resources(custom={"reward_node": 1}))], [EIGHT_GPUS])


def test_fractions_of_a_machine_add_up() -> None:
    check_placement([Demand("rollout", 3, Resources(num_cpus=0.1))] * 10, [{"CPU": 3.0}])


def test_every_actor_keeps_what_it_compiles_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables as PyTorch, Triton and vLLM read them."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(cluster.ray, "init", lambda **options: asked.update(options))
    monkeypatch.setattr(cluster.ray, "nodes", list)
    monkeypatch.setattr(cluster, "check_placement", lambda *_: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster.connect(load_config("pocket", [f"cluster.compiled={tmp_path}"]))
    variables = asked["runtime_env"]["env_vars"]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", variables["TORCHINDUCTOR_CACHE_DIR"])
    assert Path(cache_dir()) == tmp_path / "inductor"
    assert {variables["TRITON_CACHE_DIR"], variables["VLLM_CACHE_ROOT"]} == {
        str(tmp_path / "triton"),
        str(tmp_path / "vllm"),
    }
    cluster.connect(load_config("pocket"))
    assert not {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT"} & set(
        asked["runtime_env"]["env_vars"]
    )


@pytest.fixture
def listening() -> Iterator[str]:
    # On all interfaces, as Ray does: it knows this machine by another name than localhost.
    with socket.create_server(("", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def deserted() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_a_cluster_that_is_gone_is_said_in_seconds_and_not_asked_for_minutes(deserted: str, prefix: str) -> None:
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=f"no Ray cluster answers at {prefix}{deserted}: .*refused"):
        visit(prefix + deserted, None)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:port", "no.such.host.invalid:6379"])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(UnreachableError, match=address):
        reach(address)


def test_a_cluster_that_answers_is_reached_under_its_address(listening: str) -> None:
    assert reach(f"ray://{listening}") == f"ray://{listening}"
    assert reach(listening).rpartition(":")[2] == listening.rpartition(":")[2]
