"""Kills a run's actors from outside, as a machine would: kill -9, no word beforehand."""

import argparse
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from deploy.cluster import visit
from deploy.records.folder import RunFolder
from deploy.watching import control

_PATIENCE_S = 120.0
_POLL_S = 0.2


class Saboteur:
    """Talks to one run and kills its rollout and reward actors.

    Args:
        folder: of the run; waited for until somebody drives it.
        seed: of the choice of victims.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = random.Random(seed)
        deadline = time.monotonic() + _PATIENCE_S
        while (found := RunFolder(folder).whereabouts) is None:
            assert time.monotonic() < deadline, f"nobody drives {folder}"
            time.sleep(_POLL_S)
        self._home = found["namespace"]
        visit(found["address"], found["auth"])
        self._control = ray.get_actor(control.NAME, self._home)

    def __enter__(self) -> "Saboteur":
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def process_of(self, actor: str) -> int:
        """Return the process number of one of the run's actors."""
        return int(ray.get(ray.get_actor(actor, self._home).describe.remote(), timeout=60)["pid"])

    def status(self) -> dict[str, Any] | None:
        """Return the run's status, empty before it said anything; None once it has ended."""
        try:
            # On a busy machine an answer takes its time; that the run has ended is told at once.
            status: dict[str, Any] = ray.get(self._control.status.remote(), timeout=_PATIENCE_S)
            return status
        except (RayActorError, GetTimeoutError):
            return None

    def await_update(self, update: int) -> dict[str, Any] | None:
        """Return the status when so many updates are made; None when the run has ended before."""
        while (status := self.status()) is not None and status.get("update", -1) < update:
            time.sleep(_POLL_S)
        return status

    def kill(self, role: str | None = None) -> str | None:
        """Kill one worker of a pool, or of any; return its name, or None when it was gone already."""
        workers = (self.status() or {}).get("workers", {})
        names = sorted(name for pool, names in workers.items() if role in (None, pool) for name in names)
        if not names:
            return None
        victim = self._random.choice(names)
        try:
            os.kill(self.process_of(victim), signal.SIGKILL)
        except (ValueError, RayActorError, GetTimeoutError, ProcessLookupError):
            return None
        return victim

    def rampage(self, every_s: tuple[float, float], most: int, log: Path) -> None:
        """Kill one worker after another at random times, until the run ends or so many are killed.

        Args:
            every_s: shortest and longest pause between two kills, seconds.
            most: kills.
            log: gets the victims' names, a line each.
        """
        killed = 0
        with log.open("w", buffering=1) as lines:
            while killed < most and self.status() is not None:
                time.sleep(self._random.uniform(*every_s))
                if victim := self.kill():
                    killed += 1
                    lines.write(f"{victim}\n")


def main() -> None:
    """Go for a run's actors from its second update on. In a process of its own: Ray ends those whose cluster ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("log", type=Path)
    parser.add_argument("--every", type=float, nargs=2, default=(3.0, 8.0), metavar="SECONDS")
    parser.add_argument("--most", type=int, default=10**9, help="kills")
    chosen = parser.parse_args()
    with Saboteur(chosen.folder, seed=1) as saboteur:
        saboteur.await_update(1)
        saboteur.rampage(tuple(chosen.every), chosen.most, chosen.log)


if __name__ == "__main__":
    main()
