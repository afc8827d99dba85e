"""A cluster with 256 rollout workers in virtual time: how well the real loop overlaps its three stages.

The ledger, the collector and the pools are the real ones. Their actors are not (`benchmarks.simulated`): a call sleeps
for as long as it was measured to take on an H200, with jitter and a heavy tail. The driver's own time is no part of it;
that is `loop_overhead`.

Overlap efficiency is the time that the busiest stage needs for the groups that were learned from, divided by the time
that passed: 1 when that stage never waits. Work on a group that was dropped for its age does not count, nor does what
workers spend on taking a new policy version.
"""

import argparse
import asyncio
import logging
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import results, simulated, virtual_time
from benchmarks.results import Figure
from benchmarks.stubs import stub_tasks, train
from deploy.batches.collector import Collector
from deploy.batches.ledger import Ledger
from deploy.batches.lessons import Lessons
from rc_grpo.config import EditScoreConfig, ObjectiveConfig, RewardConfig, RolloutConfig
from rc_grpo.messages import ScoredGroup
from reward_service.panel import JudgePanel

TASKS, WARM_UP = 20_000, 4
ASYNCHRONOUS = 2
"""The bound of the headline figure: the least that keeps balanced stages busy."""


@dataclass(frozen=True)
class Scenario:
    """Sizes of the pools, and what may happen to them.

    By default the three stages take about as long. That the learner is the largest is what the measured figures ask
    for: with every step of the chain trained, learning from a group takes more GPU seconds than making it. An update
    has about as many groups a worker as in the packaged FLUX config.

    Attributes:
        name: in the table.
        max_staleness: the bound, versions.
        workers: rollout actors.
        judges: reward actors.
        ranks: of the learner.
        groups: of an update.
        mean_life_s: of an actor, seconds; None where none dies.
        window: batches of the plan that one is made of (`Windowed`); None: whatever is ready, as the ledger does.
    """

    name: str
    max_staleness: int
    workers: int = 256
    judges: int = 58
    ranks: int = 400
    groups: int = 1200
    mean_life_s: float | None = None
    window: float | None = None


class Windowed(Ledger):
    """A ledger that learns only from the first so many groups of the plan that it has not learned from.

    A slow group is then overtaken by no more of them, and a group that is ready beyond waits, and may grow too old. A
    window of one batch is first in, first out.

    Args:
        window: in batches.
        tasks: as the others, of `Ledger`.
    """

    def __init__(self, window: float, *tasks: int) -> None:
        super().__init__(*tasks)
        self._window = round(window * self._groups)
        self._first = 0

    def cut(self, version: int) -> list[ScoredGroup] | None:
        """Return the next batch; see `Ledger.cut`."""
        if len(self._ready) < self._groups:
            return super().cut(version)
        while self._first in self._learned:
            self._first += 1
        missing = (number for number in range(self._first, len(self._plan)) if number not in self._learned)
        within = set(islice(missing, self._window))
        beyond = {ticket: scored for ticket, scored in self._ready.items() if ticket.number not in within}
        self._ready = {ticket: scored for ticket, scored in self._ready.items() if ticket.number in within}
        batch = super().cut(version)
        self._ready |= beyond
        return batch


SCENARIOS = {
    "staleness_0": Scenario("balanced", 0),
    "staleness_1": Scenario("balanced", 1),
    "staleness_2": Scenario("balanced", 2),
    "staleness_4": Scenario("balanced", 4),
    "half_the_judges": Scenario("half the judges", ASYNCHRONOUS, judges=29),
    "half_the_learner": Scenario("half the learner", ASYNCHRONOUS, ranks=200),
    "losses": Scenario("balanced, an actor lives 5 h", ASYNCHRONOUS, mean_life_s=5 * 3600.0),
    "window_1": Scenario("balanced, first in, first out", ASYNCHRONOUS, window=1.0),
    "window_1_5": Scenario("balanced, window of 1.5 batches", ASYNCHRONOUS, window=1.5),
}


async def simulate(scenario: Scenario, updates: int) -> dict[str, Any]:
    """Run a scenario for so many updates after the warm-up, and return what came of it."""
    rollouts = simulated.SimulatedRollouts(scenario.workers, scenario.mean_life_s)
    judges = simulated.SimulatedJudges(scenario.judges, scenario.mean_life_s)
    panel = JudgePanel(
        RewardConfig(judges={"stub": EditScoreConfig(kind="editscore", model="simulated")}), "simulation"
    )
    panel.pools["stub"] = judges
    learner = simulated.SimulatedLearner(scenario.ranks)
    # The plan goes on beyond what is measured, so that the last updates measured have others to overlap with.
    planned = WARM_UP + updates + scenario.max_staleness + 1
    shape = TASKS, planned, scenario.groups, scenario.max_staleness, simulated.SEED
    ledger = Ledger(*shape) if scenario.window is None else Windowed(scenario.window, *shape)
    attempts, lessons = RolloutConfig().attempts, Lessons({"stub": 1.0}, ObjectiveConfig(acd_weight=0.0))
    collector = Collector(ledger, stub_tasks(TASKS), simulated.GROUP, attempts, lessons, asyncio.Event())
    await asyncio.gather(rollouts.open(), judges.open())
    marks = await train(collector, rollouts, panel, learner, planned, asyncio.get_running_loop().time)

    first, last = WARM_UP, WARM_UP + updates
    wall = marks[last - 1] - marks[first - 1]
    measured = learner.learned[first:last]
    groups = [scored for batch, _ in measured for scored in batch]
    versions = [number for number, (batch, _) in enumerate(measured, first) for _ in batch]
    busy = {
        "rollout": sum(scored.receipt.seconds["rollout"] for scored in groups) / scenario.workers,
        "reward": sum(scored.scores.latency for scored in groups) / (scenario.judges * simulated.SCORINGS_AT_ONCE),
        "learner": sum(seconds for _, seconds in measured),
    }
    dropped = ledger.dropped["stale"]
    return asdict(scenario) | {
        "overlap_efficiency": max(busy.values()) / wall,
        "seconds_per_update": wall / updates,
        "busy_seconds_per_update": {stage: seconds / updates for stage, seconds in busy.items()},
        "mean_staleness": statistics.fmean(
            version - scored.receipt.policy.number for version, scored in zip(versions, groups, strict=True)
        ),
        "dropped_share": dropped / (planned * scenario.groups + dropped),
        "actors_lost": rollouts.statistics.lost + judges.statistics.lost,
        "simulated_minutes": wall / 60,
    }


def run(scenario: Scenario, updates: int) -> dict[str, Any]:
    """Simulate in this process."""
    # Each lost actor is a warning; here they are counted.
    logging.getLogger("rc_grpo.pool").setLevel(logging.ERROR)
    return virtual_time.run(simulate(scenario, updates))


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the scenarios for a terminal; a stage's column is its busy seconds an update."""
    columns = (
        "pools",
        "bound",
        "rollout s",
        "reward s",
        "learner s",
        "update s",
        "efficiency",
        "age",
        "dropped",
        "lost",
    )
    shown = Table(*columns, title="virtual time")
    for row in rows:
        busy = row["busy_seconds_per_update"]
        shown.add_row(
            row["name"],
            str(row["max_staleness"]),
            *(f"{busy[stage]:.1f}" for stage in ("rollout", "reward", "learner")),
            f"{row['seconds_per_update']:.1f}",
            f"{row['overlap_efficiency']:.3f}",
            f"{row['mean_staleness']:.2f}",
            f"{row['dropped_share']:.2%}",
            str(row["actors_lost"]),
        )
    return shown


def main() -> None:
    """Simulate all scenarios, print them, and write ``results/loop_simulation.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=30, help="of each scenario, after the warm-up")
    updates = parser.parse_args().updates
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        rows = dict(zip(SCENARIOS, processes.map(run, SCENARIOS.values(), [updates] * len(SCENARIOS)), strict=True))
    Console(width=120).print(table(list(rows.values())))
    share, headline = "share of the time", rows[f"staleness_{ASYNCHRONOUS}"]
    figures = {
        "overlap_efficiency": Figure(
            headline["overlap_efficiency"],
            share,
            "at least 0.92",
            f"max_staleness {ASYNCHRONOUS}, balanced pools: {headline['workers']} rollout workers, "
            f"{headline['judges']} judges, {headline['ranks']} ranks, "
            f"{headline['groups']} groups of {simulated.GROUP}; "
            f"{updates} updates in virtual time after {WARM_UP} of warm-up",
        ),
        "mean_staleness": Figure(headline["mean_staleness"], "versions", None, "of the groups behind the headline"),
    }
    figures |= {
        f"overlap_efficiency_{key}": Figure(
            row["overlap_efficiency"], share, None, f"{row['name']}, max_staleness {row['max_staleness']}"
        )
        for key, row in rows.items()
        if row is not headline
    }
    latencies = {
        "rollout": simulated.ROLLOUT,
        "scoring": simulated.SCORING,
        "adoption": simulated.ADOPTION,
        "update": simulated.HICCUP,
    }
    detail = {
        "scenarios": rows,
        "latencies": {name: asdict(latency) for name, latency in latencies.items()}
        | {
            "anchor_step_s": simulated.ANCHOR_STEP_S,
            "publish_s": simulated.PUBLISH_S,
            "replacement_s": simulated.REPLACEMENT_S,
        },
    }
    print(results.write("loop_simulation", figures, detail))


if __name__ == "__main__":
    main()
