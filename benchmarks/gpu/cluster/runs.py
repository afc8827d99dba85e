"""Runs of the whole system on several GPUs, watched, and what is reckoned from what they left."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.chaos import accounts
from benchmarks.gpu import judge_of_full_size
from benchmarks.gpu.cluster import layouts, planned, timeline
from benchmarks.gpu.cluster.layouts import Layout
from benchmarks.gpu.parts import Part
from benchmarks.results import Figure
from benchmarks.runs import finish, records_of, running, summary_of
from deploy.configs import load_config

GROUPS, WARM_UP = 4, 2
"""Of an update; updates before the clock starts: the first compiles, in the second the pools fall into step."""
PACE = "candidates_per_second_per_gpu"
"""The figure that says how much is made."""
CARD_GIB, ONE_CARD_JUDGE = 78, 0.25
"""Of a card of 80 GB; the share of it that the packaged configuration of one GPU gives its judge."""


@dataclass(frozen=True)
class Machine:
    """Where it all runs.

    Attributes:
        gpus: that are used.
        small: the pocket editor on the CPU, to try the script.
        judge_python: interpreter that has vLLM.
        out: folder for runs and figures.
        updates: that are measured of a run, after the warm ones.
    """

    gpus: int
    small: bool
    judge_python: str
    out: Path
    updates: int = 3

    @property
    def config(self) -> str:
        """Name of the packaged configuration."""
        if self.small:
            return "pocket"
        return "flux_kontext_dev_one_gpu" if self.gpus == 1 else "flux_kontext_dev"

    def overrides(self, layout: Layout) -> tuple[str, ...]:
        """Return what makes a layout of it."""
        return layouts.small(layout) if self.small else layouts.full_size(layout, self.judge, self.judge_python)

    @property
    def in_short(self) -> tuple[str, ...]:
        """Return overrides of what is only compared with itself."""
        return () if self.small else ("rollout.group_size=6", "rollout.steps=4")

    @property
    def in_large(self) -> tuple[str, ...]:
        """Return overrides of large images, which take the learner's memory."""
        return () if self.small else ("editor.resolution=1024", "learner.activations=recompute")

    @property
    def judge(self) -> Path:
        """Folder of a judge of seven billion parameters, written at the first asking."""
        folder = self.out / "judge"
        if not folder.exists():
            judge_of_full_size.write(folder)
        return folder


def run(
    machine: Machine, layout: Layout, name: str, kills: Sequence[str], *overrides: str
) -> tuple[Path, list[dict[str, Any]]]:
    """Train, watched; return the run's folder and what the observer saw.

    Args:
        machine: where.
        layout: of its GPUs.
        name: of the run.
        kills: for the observer.
        overrides: more of them.

    Raises:
        RuntimeError: the run failed.
    """
    shutil.rmtree(machine.out / name, ignore_errors=True)  # One that is there would be gone on with.
    seen = machine.out / f"{name}.jsonl"
    watching = [sys.executable, "-m", "benchmarks.gpu.cluster.observer", str(machine.out / name), str(seen)]
    started = running(machine.config, machine.out, name, *machine.overrides(layout), *overrides)
    with started as (folder, training), seen.with_suffix(".observer.log").open("wb") as log:
        observer = subprocess.Popen([*watching, "--kill", *kills], stdout=log, stderr=subprocess.STDOUT)
        try:
            finish(training, folder)
            with suppress(subprocess.TimeoutExpired):
                observer.wait(30)
        finally:
            observer.kill()
            observer.wait()
    return folder, timeline.read(seen)


def overlapped(
    machine: Machine, layout: Layout, staleness: int, *overrides: str, groups: int = GROUPS, kind: str = ""
) -> Part:
    """Measure a layout's overlap over its warm updates, and how much it makes.

    Args:
        machine: where.
        layout: of its GPUs.
        staleness: bound of it.
        overrides: more of the configuration's.
        groups: of an update.
        kind: what sets the run apart from another of the same layout.

    Raises:
        RuntimeError: the run failed.
    """
    name, updates = "-".join([*layout.name.split(), str(staleness), *[kind] * bool(kind)]), machine.updates
    # During the last one there is less and less to do ahead.
    loop = _loop(WARM_UP + updates + 1, staleness, groups)
    folder, seen = run(machine, layout, name, (), loop, *overrides)
    measured = records_of(folder)[WARM_UP : WARM_UP + updates]
    wall = sum(record["seconds/update_total"] for record in measured)
    learning = sum(record["update/seconds"] for record in measured) / wall
    rolling = sum(record["pool/rollout_busy_share"] * record["seconds/update_total"] for record in measured) / wall
    counted = accounts(folder, staleness)
    config = load_config(str(folder / "config.yaml"), ())
    learner = f"activations {config.learner.activations}, ZeRO {config.learner.zero_stage}"
    setting = f"{layout.name}, max_staleness {staleness}, {updates} warm updates of {groups} groups; {learner}"
    timeline.draw(seen, f"{machine.gpus} x {device()}, {setting}", machine.out / f"{name}.png")
    candidates = groups * updates * config.rollout.group_size
    return {
        "overlap_efficiency": Figure(max(learning, rolling), "share of the time", "at least 0.92", setting),
        "rank_idle_share": Figure(
            max(record["update/rank_idle_share"] for record in measured), "share of the ranks' work", "at most 0.05"
        ),
        "seconds_per_update": Figure(wall / updates, "seconds", None, setting),
        PACE: Figure(candidates / wall / machine.gpus, "candidates per second per GPU", None, setting),
        "version_to_proof_seconds": Figure(
            max(record["seconds/version_to_proof_max"] for record in measured),
            "seconds",
            "at most 1.0",
            "the slowest worker",
        ),
        **_groups(counted, setting),
    }, {
        "learning": learning,
        "rolling_out": rolling,
        "updates": measured,
        "accounts": counted,
        "plan": planned.asked(config, layout.split, wall / updates, device()),
    }


def killed(machine: Machine, layout: Layout, kills: Sequence[str]) -> Part:
    """See how soon what is killed is back, in updates that are short.

    Args:
        machine: where.
        layout: of its GPUs.
        kills: what is killed after the warm updates, one update after the other.

    Raises:
        RuntimeError: the run failed, or something that was killed did not come back.
    """
    name, staleness = "kills", 2
    orders = [f"{WARM_UP + count}:{what}" for count, what in enumerate(kills)]
    loop = _loop(WARM_UP + 2 * len(kills) + 1, staleness)
    # The rank's checkpoint is what it comes back from.
    short = (*machine.in_short, "output.checkpoint_every=1")
    folder, seen = run(machine, layout, name, orders, loop, *short)
    back, counted = _returns(name, kills, seen), accounts(folder, staleness)
    setting = f"{layout.name}, max_staleness {staleness}, after kill -9"
    goals = {"rollout": 15, "learner": 45, "judge": 45}
    figures = {
        f"{what}_back_seconds": Figure(back[what], "seconds", f"at most {goals[what]}", setting) for what in kills
    }
    taken_over = timeline.taken_over(seen)
    figures |= {
        f"{what}_taken_over_seconds": Figure(after, "seconds", None, "another one works") for what, after in taken_over
    }
    timeline.draw(seen, f"{machine.gpus} x {device()}, {setting}", machine.out / f"{name}.png")
    return figures | _groups(counted, setting), {"updates": records_of(folder), "accounts": counted}


def repeated(machine: Machine, layout: Layout, updates: int) -> Part:
    """Compare the digests of a synchronous run of a deterministic learner and of one that is killed.

    Raises:
        RuntimeError: a run failed, or something was not killed.
    """
    alone = replace(layout, judge=())
    loop = f"loop={{updates: {updates}, max_staleness: 0, groups_per_update: 2}}"
    shape = (loop, *machine.in_short, "learner.deterministic=true", "output.checkpoint_every=1")
    calm, _ = run(machine, alone, "calm", (), *shape)
    wild, seen = run(machine, alone, "wild", ("1:learner", "2:rollout"), *shape)
    back = _returns("wild", ("learner", "rollout"), seen)
    digests = [summary_of(folder)["final_version"]["digest"] for folder in (calm, wild)]
    same = Figure(int(digests[0] == digests[1]), "1: yes, 0: no", "1", f"synchronous; killed: {', '.join(back)}")
    return {"same_digest_after_kills": same}, {"digests": digests, "back": back}


def on_one_card(machine: Machine, layout: Layout, updates: int) -> Part:
    """Train on one GPU that all pools share, and see how much of its memory they take together.

    The judge's server gets as much memory as on a card of 80 GB.

    Raises:
        RuntimeError: the run failed.
    """
    share = layout.judge
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0).total_memory
        part = ONE_CARD_JUDGE * min(1.0, CARD_GIB * 2**30 / there)
        share = (*share, f"reward.judges.editscore.server.gpu_memory_utilization={part:.3f}")
    packaged = load_config(machine.config, ()).loop.max_staleness
    folder, seen = run(machine, replace(layout, judge=share), "one-card", (), _loop(updates, packaged))
    measured = records_of(folder)
    peak = max((memory for line in seen for _, memory in line.get("gpus", ())), default=0) / 1024
    seconds = measured[-1]["seconds/update_total"]
    setting = f"{updates} updates of {GROUPS} groups; a worker in float8, a judge of 7 billion parameters, a rank"
    figures = {
        "updates": Figure(len(measured), "updates", str(updates), setting),
        "seconds_per_update": Figure(seconds, "seconds", None, "the last; the first compiles"),
        "peak_memory_gib": Figure(
            peak, "GiB", f"at most {CARD_GIB}", "all processes together, looked at once a second"
        ),
    }
    timeline.draw(seen, f"1 x {device()}, {setting}", machine.out / "one-card.png")
    plan = planned.asked(load_config(str(folder / "config.yaml"), ()), layout.split, seconds, device())
    return figures, {"updates": measured, "plan": plan}


def device() -> str:
    """Return the GPU's name, or that there is none."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"


def _loop(updates: int, staleness: int, groups: int = GROUPS) -> str:
    return f"loop={{updates: {updates}, max_staleness: {staleness}, groups_per_update: {groups}}}"


def _groups(counted: Mapping[str, Any], setting: str) -> dict[str, Figure]:
    return {
        "groups_lost": Figure(counted["lost"], "groups", "0", setting),
        "groups_over_stale": Figure(counted["over_stale"], "groups", "0", setting),
    }


def _returns(name: str, kills: Sequence[str], seen: Sequence[dict[str, Any]]) -> dict[str, float]:
    back = timeline.returns(seen)
    if missing := [what for what in kills if what not in back]:
        raise RuntimeError(f"of what was to be killed in {name}, were not killed or not back: {', '.join(missing)}")
    return back
