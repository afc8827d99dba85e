"""Connecting to Ray, and the check that everything asked for fits before anything starts."""

import logging
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rc_grpo.config import ConfigError, Resources, RunConfig

NAMESPACE_PREFIX = "rc-grpo"
REACH_DEADLINE_S = 5.0
_AUTH_MODE = "RAY_AUTH_MODE"


class PlacementError(RuntimeError):
    """The cluster cannot hold the actors that the configuration asks for."""


class UnreachableError(ConfigError):
    """No Ray cluster answers where one was said to be."""


@dataclass(frozen=True)
class Demand:
    """Actors of one pool."""

    pool: str
    count: int
    each: Resources


def namespace(run: str) -> str:
    """Return the Ray namespace of a run; its actors are named rollout-0, reward-0, learner-0 in it."""
    return f"{NAMESPACE_PREFIX}-{run}"


def beside_the_driver() -> dict[str, Any]:
    """Return actor options for a helper of the driver: on its node, where its files are, claiming no CPU."""
    node = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def demands(config: RunConfig) -> list[Demand]:
    """Return what the configuration asks the cluster for."""
    asked = []
    if config.loop.feed is None:
        asked.append(Demand("rollout", config.rollout.workers, config.rollout.resources))
        judges = config.reward.judges.items()
        asked += [Demand(f"reward-{name}", judge.workers, judge.resources) for name, judge in judges]
    if config.loop.learn:
        asked.append(Demand("learner", config.learner.ranks, config.learner.resources))
    return asked


def connect(config: RunConfig) -> None:
    """Connect to the configured cluster, or start Ray on this machine; then check that the run fits.

    Inside a submitted job Ray names its cluster in RAY_ADDRESS; that one is taken when the configuration names none.

    Raises:
        PlacementError: it does not, with the numbers.
        UnreachableError: no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = config.cluster
    # What libraries say at every import in every actor would bury what the run says.
    quieter = {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore::FutureWarning"}
    variables = {name: os.environ.get(name, value) for name, value in quieter.items()} | kept_code(cluster.compiled)
    environment = {"env_vars": variables}
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # By name: without it Ray would join whatever cluster `ray start` left a note of on this machine, dead ones too.
        ray.init(address="local", num_cpus=cluster.cpus, include_dashboard=cluster.dashboard, runtime_env=environment)
    else:
        ray.init(address=reach(address), runtime_env=environment)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    check_placement(demands(config), nodes)


def kept_code(folder: Path | None) -> dict[str, str]:
    """Return the variables by which every actor keeps compiled code in one folder.

    Whatever is kept there is found by a digest of the graph, its shapes, the GPU and the versions: several of each can
    share it.
    """
    if folder is None:
        return {}
    places = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "VLLM_CACHE_ROOT": "vllm"}
    return {name: str(folder.absolute() / place) for name, place in places.items()}


def reach(address: str) -> str:
    """Return the address under which a cluster answers now; its port is tried first.

    Ray itself asks a cluster that is gone for ten minutes, and ``auto`` names one of which only a note was left in
    ``/tmp/ray``.

    Args:
        address: ``host:port``, ``auto``, or ``ray://host:port`` of a client server.

    Raises:
        UnreachableError: nobody accepts a connection within `REACH_DEADLINE_S`.
    """
    scheme, _, place = address.rpartition("://")
    try:
        place = place if scheme else canonicalize_bootstrap_address_or_die(place)
        host, _, port = place.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), REACH_DEADLINE_S):
            return f"{scheme}://{place}" if scheme else place
    except (ValueError, OSError) as error:
        start = "; `ray start --head` starts one on this machine" if address == "auto" else ""
        raise UnreachableError(f"no Ray cluster answers at {address}: {error}{start}") from error


def whereabouts(home: str) -> dict[str, str]:
    """Return what another process needs to reach the actors of a namespace on the cluster that this one is on."""
    return {
        "address": ray.get_runtime_context().gcs_address,
        "namespace": home,
        "auth": os.environ.get(_AUTH_MODE, "disabled"),
    }


def visit(address: str, auth: str | None) -> None:
    """Connect to a cluster that another process started, to talk to its actors.

    Args:
        address: of the cluster.
        auth: its authentication mode, where it is known. Ray turns tokens on by itself for a cluster that it starts,
            but not for one that it connects to.

    Raises:
        UnreachableError: no cluster answers there.
    """
    address = reach(address)
    if auth is not None and _AUTH_MODE not in os.environ:
        os.environ[_AUTH_MODE] = auth
        ray._raylet.Config.initialize("")  # It was read when Ray was imported.
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)


def check_placement(asked: Sequence[Demand], nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that each actor fits on a node and that all of them fit together.

    A necessary check, made in no time; fragmentation over nodes can still leave an actor waiting for its deadline.

    Args:
        asked: the pools.
        nodes: total resources of each node, in Ray's names.

    Raises:
        PlacementError: naming the pool or the resource that is short, with a table of what is asked and what is there.
    """
    there: Counter[str] = Counter()
    for node in nodes:
        there.update({name: amount for name, amount in node.items() if not name.startswith("node:")})
    problems = []
    total: Counter[str] = Counter()
    for demand in asked:
        each = demand.each.as_ray()
        total.update({name: amount * demand.count for name, amount in each.items()})
        if not any(all(node.get(name, 0.0) >= amount for name, amount in each.items()) for node in nodes):
            problems.append(f"no node holds one {demand.pool} actor ({amounts(each)})")
    for name, amount in total.items():
        if amount > there[name] + 1e-6:
            problems.append(f"{name}: {amount:g} asked, {there[name]:g} in the cluster")
    if problems:
        width = max(8, *(len(demand.pool) for demand in asked))
        table = "\n".join(
            f"  {demand.pool:<{width}} {demand.count:>3} x ({amounts(demand.each.as_ray())})" for demand in asked
        )
        together = amounts({name: there[name] for name in total})
        raise PlacementError(
            "the cluster cannot hold this run: "
            + "; ".join(problems)
            + f"\n{table}\n  {'cluster':<{width}} {len(nodes):>3} nodes (together {together})\n"
            "lower workers, ranks or resources of a pool (rollout.workers, learner.ranks, *.resources), or add nodes"
        )


def amounts(resources: Mapping[str, float]) -> str:
    """Return resources in words, such as ``CPU 2, GPU 1``."""
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(resources.items())) or "nothing"
