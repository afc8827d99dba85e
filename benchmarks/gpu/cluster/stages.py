"""Two ranks under every ZeRO stage: what they learn from one batch, and what kernels that repeat their bits cost."""

import asyncio
import itertools

import ray
from torch import Tensor

from benchmarks.gpu.cluster import layouts
from benchmarks.gpu.cluster.runs import Machine
from benchmarks.gpu.parts import Part
from benchmarks.ranks import apart, batch_of, learned, trained_lora
from benchmarks.results import Figure
from deploy.configs import load_config

RANKS, GROUPS, STAGES, TIMED, WARM = 2, 3, (0, 1, 2, 3), 1, 2
"""Three groups on two ranks are dealt by their chains. Of one stage the second update is timed: the first compiles."""


def measure(machine: Machine) -> Part:
    """Learn from one batch under every stage with kernels that repeat, and under one without."""
    layout = layouts.layouts(2)[-1]
    config = load_config(machine.config, (*machine.overrides(layout), *machine.in_short))
    start = machine.out / "start"
    weights = trained_lora(config, start)
    ray.init(address="local", include_dashboard=False, num_cpus=config.cluster.cpus)
    batch = batch_of(config, weights, GROUPS)

    def of(stage: int, name: str, updates: int, *, deterministic: bool) -> tuple[dict[str, Tensor], float]:
        shape = {"ranks": RANKS, "zero_stage": stage, "deterministic": deterministic}
        shaped = config.model_copy(update={"learner": config.learner.model_copy(update=shape)})
        learnt, report = asyncio.run(learned(shaped, start, batch, f"zero-{name}", updates))
        return learnt[0], report.metrics["update/seconds"]

    # A kernel that adds in any order is as far from itself as from another stage.
    exact = {stage: of(stage, str(stage), WARM if stage == TIMED else 1, deterministic=True) for stage in STAGES}
    _, plain = of(TIMED, "plain", WARM, deterministic=False)
    ray.shutdown()
    moved = {stage: apart(learnt, weights) for stage, (learnt, _) in exact.items()}
    if not all(moved.values()):
        raise RuntimeError(f"nothing was learned: by stage, the weights moved by {moved}")
    differences = {
        f"{one} and {other}": apart(exact[one][0], exact[other][0]) for one, other in itertools.combinations(STAGES, 2)
    }
    seconds = {"exact": exact[TIMED][1], "as fast as may be": plain}
    setting = (
        f"{RANKS} ranks, stages {min(STAGES)} to {max(STAGES)}, deterministic kernels, an update on {GROUPS} groups"
    )
    return {
        "zero_max_relative_difference": Figure(
            max(differences.values()), "of the weights' norm", "at most 1e-5", setting
        ),
        "deterministic_cost": Figure(exact[TIMED][1] / plain, "times the seconds of an update", None, f"ZeRO {TIMED}"),
    }, {"differences": differences, "moved": moved, "seconds": seconds}
