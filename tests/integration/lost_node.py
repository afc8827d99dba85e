"""A training on three local Ray nodes, of which one is stopped; run as a program, since it needs a cluster of its own.

    python -m tests.integration.lost_node ROOT

Prints the digests of the run whose node was stopped and of the undisturbed one.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from deploy.cluster import namespace
from deploy.run import Run
from tests.integration.conftest import FOUR, short_config
from tests.integration.disturbed import drive, quiet


class NodeLoses(Run):
    """A run that loses the node of one of its rollout workers after its second update."""

    deeds: dict[int, Any]
    cluster: Any
    nodes: list[Any]

    async def record(self, *arguments: Any) -> None:
        await super().record(*arguments)
        if self.done == 2 and self.nodes:
            worker = ray.get_actor("rollout-0", namespace(self.config.name))
            where = ray.get(worker.describe.remote(), timeout=10)["node"]
            node = next(node for node in self.nodes if node.node_id == where)
            self.nodes = []
            self.cluster.remove_node(node, allow_graceful=False)


def main(root: Path) -> None:
    """Run twice and say the digests."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=2, resources={"edge": 1}) for _ in range(2)]
    ray.init(address=cluster.address)
    digests = {}
    try:
        for name, doomed in (("kept", []), ("lost", nodes)):
            placed = ("rollout.workers=2", "rollout.resources={num_cpus: 1, custom: {edge: 0.6}}")
            run = NodeLoses(short_config(root, name, *FOUR, *placed, "output.experience=scores"), quiet())
            run.cluster, run.nodes = cluster, list(doomed)
            drive(run)
            summary = json.loads((root / name / "summary.json").read_text())
            digests[name] = summary["final_version"]["digest"]
    finally:
        ray.shutdown()
        cluster.shutdown()
    print(json.dumps(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
