"""What a run is doing at one moment, as plain values: what status, metrics and pages are made of."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deploy.records.folder import RunFolder
from deploy.stopping import Stop
from learner.protocol import Learner
from rc_grpo.config import RunConfig
from rc_grpo.messages import PolicyVersion, VersionProof
from rc_grpo.pool import WorkerPool
from rc_grpo.waiting import Wait, Waits
from rollout_workers.pool import RolloutPool


@dataclass(frozen=True)
class PoolView:
    """A pool at one moment.

    Attributes:
        role: prefix of its workers' names.
        summary: workers by what they do, see `rc_grpo.pool.WorkerPool.summary`.
        members: names of the workers that are up.
        proofs: the last proof of each of them that holds a policy.
        sync_seconds: how long each took from a version's publication to its proof.
    """

    role: str
    summary: Mapping[str, float]
    members: tuple[str, ...]
    proofs: Mapping[str, VersionProof]
    sync_seconds: Mapping[str, float]


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        config: of the run.
        folder: of the run.
        driver: process that drives it.
        done: updates made.
        losses: times that the learner was lost since the last checkpoint.
        stopping: a stop was asked for.
        version: last published; None before the first.
        groups: what became of the groups so far, by name.
        pools: rollouts first.
        waits: that go on: of ``run``, ``batches`` and ``learner``, and of each pool by its role; the longest first.
    """

    config: RunConfig
    folder: Path
    driver: int
    done: int
    losses: int
    stopping: bool
    version: PolicyVersion | None
    groups: Mapping[str, int]
    pools: tuple[PoolView, ...]
    waits: Mapping[str, tuple[Wait, ...]]

    def as_dict(self) -> dict[str, Any]:
        """Return the status of the run as JSON takes it, for another process."""
        return {
            "run": self.config.name,
            "folder": str(self.folder),
            "driver": self.driver,
            "update": self.done,
            "updates": self.config.loop.updates,
            "version": None if self.version is None else str(self.version),
            "learner": {"ranks": self.config.learner.ranks, "losses": self.losses},
            "groups": dict(self.groups),
            "pools": {pool.role: dict(pool.summary) for pool in self.pools},
            "workers": {pool.role: list(pool.members) for pool in self.pools},
            "proven": {
                pool.role: {name: proof.version for name, proof in pool.proofs.items()}
                for pool in self.pools
                if pool.proofs
            },
            "waits": [wait.as_dict() for waits in self.waits.values() for wait in waits],
            "stopping": self.stopping,
        }


class Place(Protocol):
    """Where a run is in its plan."""

    @property
    def done(self) -> int:
        """Updates made."""
        ...

    @property
    def losses(self) -> int:
        """Times that the learner was lost since the last checkpoint."""
        ...


class Batches(Protocol):
    """Where a run's batches come from."""

    @property
    def waits(self) -> Waits:
        """What it waits for."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of the groups so far, by name."""
        ...


class Working(Protocol):
    """What a run works with."""

    @property
    def config(self) -> RunConfig:
        """Of the run."""
        ...

    @property
    def pools(self) -> Mapping[str, WorkerPool[Any]]:
        """By role."""
        ...

    @property
    def learner(self) -> Learner:
        """Turns batches into versions."""
        ...

    @property
    def source(self) -> Batches:
        """Brings the batches."""
        ...


def take(position: Place, services: Working, stop: Stop, waits: Waits) -> Snapshot:
    """Look at a run's live objects once.

    Args:
        position: of the run.
        services: of the run.
        stop: of the run.
        waits: of the run itself.
    """
    pools, learner, source = services.pools, services.learner, services.source
    going_on = {"run": waits.now, "batches": source.waits.now, "learner": learner.waits.now}
    return Snapshot(
        config=services.config,
        folder=RunFolder.of(services.config).path,
        driver=os.getpid(),
        done=position.done,
        losses=position.losses,
        stopping=stop.asked.is_set(),
        version=learner.version if learner.has_published else None,
        groups=source.counts,
        pools=tuple(map(_view, pools.values())),
        waits=going_on | {role: pool.waits.now for role, pool in pools.items()},
    )


def _view(pool: WorkerPool[Any]) -> PoolView:
    there = tuple(member.name for member in pool.members)
    proofs: Mapping[str, VersionProof] = {}
    seconds: Mapping[str, float] = {}
    if isinstance(pool, RolloutPool):
        proofs, seconds = (_of(there, kept) for kept in (pool.proofs, pool.sync_seconds))
    return PoolView(pool.role, pool.summary, there, proofs, seconds)


def _of(names: Sequence[str], kept: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kept[name] for name in names if name in kept}
