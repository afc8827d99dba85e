"""Actors are killed all the time: what a run loses by it. Three runs of the pocket editor on a real local Ray cluster.

Synchronous: at least thirty kill -9s of rollout and reward actors, and the final weights of the undisturbed run.
Asynchronous: a thousand groups under kills every few seconds, counted in the experience log against the plan.
Recovery: how long after a kill the run is as fast again as before it.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import results, runs
from benchmarks.results import Figure
from benchmarks.runs import experience_of, finish, records_of, summary_of
from benchmarks.saboteur import Saboteur
from deploy.batches.ledger import Ledger
from rc_grpo.config import RunConfig, load
from rc_grpo.data import load_tasks

TINY = (
    "rollout.group_size=3",
    "rollout.steps=2",
    "rollout.attempts=20",
    "objective.anchors=1",
    "learner.ranks=1",
    "evaluation.tasks=0",
    "output.grid_every=1000",
    "output.experience=scores",
    "cluster.cpus=8",
    "reward.judges.ground_truth.attempts=20",
)
KILLS = 32
RECOVERY_WINDOW_S, RECOVERY_KILLS, RECOVERED = 10.0, 4, 0.9


def running(root: Path, name: str, *overrides: str) -> AbstractContextManager[tuple[Path, "subprocess.Popen[bytes]"]]:
    """Start a tiny run of the pocket editor; see `benchmarks.runs.running`."""
    return runs.running("pocket", root, name, *TINY, *overrides)


def disturbed(
    root: Path, name: str, every_s: tuple[float, float], most: int, *overrides: str
) -> tuple[Path, list[str]]:
    """Run to the end while workers are killed; return the folder and who was killed."""
    log = root / f"{name}.killed"
    with running(root, name, *overrides) as (folder, process):
        command = [sys.executable, "-m", "benchmarks.saboteur", str(folder), str(log)]
        command += ["--every", *map(str, every_s), "--most", str(most)]
        saboteur = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            finish(process, folder)
        finally:
            saboteur.kill()
            saboteur.wait()
    return folder, log.read_text().split()


def synchronous(root: Path, updates: int) -> dict[str, Any]:
    """Compare the final weights of an undisturbed run and of one whose actors are killed."""
    shape = (f"loop.updates={updates}", "loop.groups_per_update=6", "rollout.workers=2")
    with running(root, "undisturbed", *shape) as (folder, process):
        finish(process, folder)
    calm = summary_of(folder)
    folder, killed = disturbed(root, "disturbed", (3.0, 7.0), KILLS, *shape)
    wild = summary_of(folder)
    return {
        "same_digest": calm["final_version"] == wild["final_version"],
        "kills": len(killed),
        "killed_by_pool": Counter(name.rsplit("-", 1)[0] for name in killed),
        "updates": updates,
        "minutes_undisturbed": calm["training_minutes"],
        "minutes_disturbed": wild["training_minutes"],
        "digest": calm["final_version"]["digest"],
    }


def asynchronous(root: Path, groups: int, staleness: int) -> dict[str, Any]:
    """Count the groups of a run under kills against its plan, in the experience log."""
    per_update = 20
    shape = (f"loop.updates={groups // per_update}", f"loop.groups_per_update={per_update}", "rollout.workers=2")
    folder, killed = disturbed(root, "asynchronous", (3.0, 8.0), 10_000, *shape, f"loop.max_staleness={staleness}")
    return accounts(folder, staleness) | {
        "dropped_and_made_again": summary_of(folder)["ledger"]["dropped_stale"],
        "kills": len(killed),
        "minutes": summary_of(folder)["training_minutes"],
    }


def accounts(folder: Path, staleness: int) -> dict[str, int]:
    """Count the groups that a run learned from against its plan, in its experience log.

    Args:
        folder: of the run.
        staleness: bound that it promised.
    """
    rows = experience_of(folder, ["update", "candidate", "seed", "policy_number"]).to_pylist()
    learned = Counter(row["seed"] for row in rows if row["candidate"] == 0)
    config = load(folder / "config.yaml")
    planned = planned_seeds(config)
    records = records_of(folder)
    versions = {record["update"]: int(record["version"].split(":")[0].removeprefix("v")) for record in records}
    replaced = int(sum(value for name, value in records[-1].items() if name.startswith("ledger/replaced_")))
    # A group that nothing can be learned from is learned from in vain, or another one is made in its place: that, too,
    # may be replaced, so there may be more of these than places that they took.
    others = len(learned.keys() - planned)
    in_place = min(others, replaced)
    ages = [versions.get(row["update"] - 1, 0) - row["policy_number"] for row in rows]
    return {
        "groups": sum(learned.values()),
        "lost": len(planned - learned.keys()) - in_place,
        "replaced": replaced,
        "unplanned": others - in_place,
        "duplicated": sum(count - 1 for count in learned.values()),
        "over_stale": sum(age > staleness for age in ages) // config.rollout.group_size,
        "oldest": max(ages),
    }


def planned_seeds(config: RunConfig) -> set[int]:
    """Return the seed of each group that the plan of a run has."""
    tasks, loop = load_tasks(config.data.train), config.loop
    ledger = Ledger(len(tasks), loop.updates, loop.groups_per_update, loop.max_staleness, config.seed)
    tickets = ledger.dispatch(loop.updates)
    ids, size = list(tasks.row_of), config.rollout.group_size
    return {ledger.seeds(ticket, ids[ticket.task], size).reference for ticket in tickets}


def recovery(root: Path) -> list[float]:
    """Return how long after each of several kills the pace of groups was back, in seconds."""
    shape = ("loop.updates=100000", "loop.groups_per_update=4", "rollout.workers=3", "loop.max_staleness=2")
    with running(root, "recovery", *shape) as (folder, _), Saboteur(folder, seed=2) as saboteur:
        saboteur.await_update(5)
        return [_recovered(saboteur) for _ in range(RECOVERY_KILLS)]


def _recovered(saboteur: Saboteur) -> float:
    seen: list[tuple[float, int]] = []

    def status() -> dict[str, Any]:
        told = saboteur.status()
        assert told, "the run has ended"
        return told

    def pace() -> float:
        """Groups a second over the last window."""
        groups = status()["groups"]
        now = time.monotonic()
        seen.append((now, groups["learned"] + groups["ready"]))
        window = [entry for entry in seen if entry[0] >= now - RECOVERY_WINDOW_S]
        return (window[-1][1] - window[0][1]) / max(window[-1][0] - window[0][0], 1e-9)

    def paces(seconds: float) -> list[float]:
        found, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            found.append(pace())
            time.sleep(0.25)
        return found

    paces(RECOVERY_WINDOW_S)
    before = statistics.median(paces(RECOVERY_WINDOW_S))
    workers = len(status()["workers"]["rollout"])
    assert saboteur.kill("rollout") is not None
    killed = time.monotonic()
    seen.clear()
    while True:
        rate, here = pace(), len(status()["workers"]["rollout"])
        elapsed = time.monotonic() - killed
        if here >= workers and rate >= RECOVERED * before and seen[-1][0] - seen[0][0] > 2.0:
            return elapsed
        assert elapsed < 120, f"after two minutes the pace is {rate:.2f} of {before:.2f} groups/s with {here} workers"
        time.sleep(0.25)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write ``results/chaos.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=70, help="of the synchronous run")
    parser.add_argument("--groups", type=int, default=1000, help="of the asynchronous run")
    chosen = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="rc-grpo-chaos-"))
    try:
        sync = synchronous(root, chosen.updates)
        print(sync, flush=True)
        free = asynchronous(root, chosen.groups, staleness=2)
        print(free, flush=True)
        recovered = recovery(root)
    finally:
        shutil.rmtree(root)
    note = f"{free['groups']} groups, max_staleness 2, {free['kills']} kill -9s in {free['minutes']:.1f} minutes"
    figures = {
        "same_digest": Figure(
            int(sync["same_digest"]),
            "1: yes, 0: no",
            "1",
            f"{sync['kills']} kill -9s over {sync['updates']} synchronous updates against the undisturbed run",
        ),
        "kills": Figure(sync["kills"], "kill -9s", "at least 30", "of rollout and reward actors, synchronous run"),
        "groups_lost": Figure(free["lost"], "groups", "0", note),
        "groups_duplicated": Figure(free["duplicated"] + free["unplanned"], "groups", "0", note),
        "groups_over_stale": Figure(free["over_stale"], "groups", "0", note),
        "recovery_seconds": Figure(
            max(recovered),
            "seconds",
            "below 30",
            f"longest of {len(recovered)} kills of one of three rollout workers until the pool is whole and the pace "
            f"of groups over the last {RECOVERY_WINDOW_S:g} s at most is {RECOVERED:.0%} of what it was",
        ),
    }
    detail = {"synchronous": sync, "asynchronous": free, "recovery_seconds": recovered}
    print(results.write("chaos", figures, detail).read_text())


if __name__ == "__main__":
    main()
