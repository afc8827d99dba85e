"""A run over two hosts that share no disk: weights and groups cross the network, once, and the run is the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rc_grpo.data.log.logged import read_groups
from tests.integration.conftest import read_run
from tests.integration.hosts import HERE, Hosts, possible, two_hosts
from tests.integration.ray_nodes import BIN

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not possible(), reason="needs root and ip: network namespaces"),
]
UPDATES, GROUPS, WORKERS = 3, 3, 2
SHORT = (
    f"loop={{updates: {UPDATES}, groups_per_update: {GROUPS}}}",
    "rollout.group_size=4",
    "rollout.steps=3",
    "objective.anchors=2",
    f"rollout.workers={WORKERS}",
    "learner.ranks=1",
    "data.train.limit=12",
    "evaluation.tasks=0",
    "output.experience=states",
    "output.grid_every=1000",
    "output.checkpoint_every=1",
    "output.watch=false",
)
AT_MOST = 1.25
"""Bytes over the cable for each that has to cross: headers, tasks, conditions, heartbeats."""


ON_GPUS = ("editor.device=cuda", "learner.deterministic=true")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


def placed(*, rollouts: str, learner: str, gpus: bool = False) -> tuple[str, ...]:
    """Put the learner on one host, the rest on one; on GPUs two workers and a learner find room on one of them."""
    part = 0.3 if gpus else 0
    return (
        f"rollout.resources={{num_cpus: 1, num_gpus: {part}, custom: {{{rollouts}: 1}}}}",
        f"reward.judges.ground_truth.resources={{num_cpus: 0.5, custom: {{{rollouts}: 1}}}}",
        f"learner.resources={{num_cpus: 1, num_gpus: {part}, custom: {{{learner}: 1}}}}",
        *(ON_GPUS if gpus else ()),
    )


def train(hosts: Hosts, name: str, *settings: str) -> tuple[int, str]:
    """Train on both hosts, driven from the first; return exit code and what was said."""
    options = [*SHORT, *settings, f"name={name}", f"output.root={hosts.site}", f"cluster.address={hosts.address}"]
    command = [str(BIN / "rc-grpo"), "train", "pocket", *(part for one in options for part in ("--set", one))]
    ended = hosts.run(HERE, command, 300)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as hosts:
        yield hosts


@needs_two_gpus
def test_what_crosses_between_two_gpus_of_two_hosts_is_what_crosses_between_cpus(tmp_path: Path) -> None:
    with two_hosts(tmp_path, gpus=True) as hosts:
        crosses_once(hosts, gpus=True)


def test_what_crosses_does_so_once_and_the_run_is_that_of_one_host(hosts: Hosts) -> None:
    crosses_once(hosts, gpus=False)


def crosses_once(hosts: Hosts, *, gpus: bool) -> None:
    """Train over both hosts and on one; what comes and leaves is counted, and the weights are the same."""
    before = hosts.carried()
    code, said = train(hosts, "apart", *placed(rollouts="there", learner="here", gpus=gpus))
    came, left = (now - then for now, then in zip(hosts.carried(), before, strict=True))
    assert code == 0, said
    apart = read_run(hosts.site / "apart")
    code, said = train(hosts, "together", *placed(rollouts="here", learner="here", gpus=gpus))
    assert code == 0, said
    assert apart.digest == read_run(hosts.site / "together").digest

    weights = [path.stat().st_size for path in (apart.folder / "policies").glob("*.safetensors")]
    groups = [
        group.candidates.to_arrow().nbytes
        for path in sorted((apart.folder / "experience").glob("*.parquet"))
        for group in read_groups(path, need="states")
    ]
    assert (len(weights), len(groups)) == (UPDATES + 1, UPDATES * GROUPS)
    # The last version acts in no rollout, and two workers of a host read one copy of the others.
    assert sum(weights[:-1]) < left < AT_MOST * sum(weights) + 2e6, (left, weights)
    assert sum(groups) < came < AT_MOST * sum(groups) + 4e6, (came, sum(groups))
    print(f"came {came / len(groups):,.0f} bytes a group of {groups[0]:,}; left {left / len(weights):,.0f} a version")


def test_a_learner_that_does_not_see_the_runs_folder_is_said_before_anything_is_learned(hosts: Hosts) -> None:
    code, said = train(hosts, "unshared", *placed(rollouts="there", learner="there"))
    assert code == 2, said
    assert "put output.root on storage that the driver's node and the learner's nodes share" in " ".join(said.split())
    assert "Traceback" not in said
    assert not list((hosts.site / "unshared").glob("experience/*"))
