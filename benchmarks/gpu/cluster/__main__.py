"""The whole system on several GPUs at full size: overlap, kills, ranks, and what ``rc-grpo plan`` said of it.

    python -m benchmarks.gpu.cluster --gpus 2 --judge-python /path/to/python
    python -m benchmarks.gpu.cluster --gpus 2 --small      # the pocket editor on the CPU, to try it; writes nothing
    python -m benchmarks.gpu.cluster --gpus 1              # the packaged flux_kontext_dev_one_gpu

Parts run one after another, each in a process of its own, and leave their figures and pictures under
``build/gpu_cluster``; what lies there goes to ``benchmarks/results/gpu_cluster.json`` (of another number of GPUs than
two, ``gpu_cluster_N.json``). Weights are random, and so are the judge's.

Weak scaling is the pace for each GPU of the layout of two GPUs several times over, with as many groups for each, over
that layout's pace on two: so it wants ``--gpus 2 --parts stale_1`` on the same machine before.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.gpu import parts
from benchmarks.gpu.cluster import planned, runs, stages
from benchmarks.gpu.cluster.layouts import layouts
from benchmarks.gpu.cluster.runs import Machine
from benchmarks.gpu.parts import Part
from benchmarks.results import Figure, write

MODULE = "benchmarks.gpu.cluster"
PICTURES = Path("docs/gpu_cluster")


def stale_1(machine: Machine) -> Part:
    """The first layout, one version behind."""
    return runs.overlapped(machine, layouts(machine.gpus)[0], 1)


def stale_2(machine: Machine) -> Part:
    """The same two versions behind."""
    return runs.overlapped(machine, layouts(machine.gpus)[0], 2)


def large(machine: Machine) -> Part:
    """The same, with images of 1024 pixels."""
    return runs.overlapped(machine, layouts(machine.gpus)[0], 1, *machine.in_large, kind=LARGE)


def weak(machine: Machine) -> Part:
    """The layout of two GPUs several times over, with as many groups for each GPU."""
    return runs.overlapped(machine, layouts(machine.gpus)[1], 1, groups=runs.GROUPS * machine.gpus // 2)


def kills(machine: Machine) -> Part:
    """A rollout worker, a rank and a judge's engine are killed, one update after the other."""
    return runs.killed(machine, layouts(machine.gpus)[0], ("rollout", "learner", "judge"))


def ranks(machine: Machine) -> Part:
    """Several ranks; on two GPUs all beside rollouts."""
    return runs.overlapped(machine, layouts(machine.gpus)[-1], 1)


def repeated(machine: Machine) -> Part:
    """A synchronous run that is killed ends at the digest of one that is not."""
    # Small updates take a second each: there must be some left to be killed in.
    return runs.repeated(machine, layouts(machine.gpus)[0], updates=30 if machine.small else 3)


def one_card(machine: Machine) -> Part:
    """Three updates on a GPU that all pools share."""
    return runs.on_one_card(machine, layouts(machine.gpus)[0], updates=3)


STALE_1, WEAK, LARGE, ONE_CARD = "stale_1", "weak", "large", "one_card"
PARTS: dict[str, Callable[[Machine], Part]] = {
    ONE_CARD: one_card,
    STALE_1: stale_1,
    WEAK: weak,
    LARGE: large,
    "kills": kills,
    "ranks": ranks,
    "zero": stages.measure,
    "repeated": repeated,
    "stale_2": stale_2,
}
_TWO = ("zero", "repeated", "stale_2")
"""That more GPUs than two would only repeat."""
_HIGHER = ("overlap_efficiency", "same_digest_after_kills", runs.PACE)
"""Figures of which the lowest is the worst."""


def main() -> None:
    """Run the parts, and write what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="those of so many GPUs if none are named")
    parser.add_argument("--updates", type=int, default=3, help="that are measured, after the warm ones")
    parser.add_argument("--small", action="store_true", help="the pocket editor on the CPU; writes nothing")
    parser.add_argument("--judge-python", default=sys.executable, help="an interpreter that has vLLM")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.parts = chosen.parts or parts_of(chosen.gpus)
    out = Path("build/gpu_cluster").resolve() / ("small" if chosen.small else str(chosen.gpus))
    out.mkdir(parents=True, exist_ok=True)
    machine = Machine(chosen.gpus, chosen.small, chosen.judge_python, out, chosen.updates)
    if chosen.here:
        (part,) = chosen.parts
        parts.leave(out / f"{part}.json", PARTS[part](machine))
        return
    same = ["--gpus", str(chosen.gpus), "--judge-python", chosen.judge_python, "--updates", str(chosen.updates)]
    same += ["--small"] * chosen.small
    failed = [part for part in chosen.parts if parts.apart(MODULE, *same, "--here", "--parts", part)]
    found, on_two = gathered(out), {} if chosen.small else gathered(out.with_name("2"))
    named = figures(found) | weak_scaling(found, on_two)
    for name, figure in named.items():
        print(f"{name}: {figure.value:.4g} {figure.unit} (goal: {figure.goal}); {figure.note or ''}")
    if not chosen.small:
        name = "gpu_cluster" if chosen.gpus == 2 else f"gpu_cluster_{chosen.gpus}"
        print(write(name, named, {part: seen for part, (_, seen) in found.items()}, module=MODULE))
        PICTURES.mkdir(exist_ok=True)
        for picture in out.glob("*.png"):
            shutil.copy(picture, PICTURES / f"{chosen.gpus}-{picture.name}")
    parts.end(failed)


def parts_of(gpus: int) -> list[str]:
    """Return the parts of so many GPUs."""
    if gpus == 1:
        return [ONE_CARD]
    others = {2: (ONE_CARD, WEAK, LARGE), 4: (ONE_CARD, LARGE, *_TWO)}.get(gpus, (ONE_CARD, *_TWO))
    return [part for part in PARTS if part not in others]


def gathered(folder: Path) -> dict[str, Part]:
    """Return what the parts left there, and what the plan says of it."""
    left = parts.gather({part: folder / f"{part}.json" for part in PARTS})
    return {name: planned.with_plan(part) for name, part in left.items()}


def weak_scaling(found: Mapping[str, Part], on_two: Mapping[str, Part]) -> dict[str, Figure]:
    """Return how much of its pace on two GPUs a layout keeps for each of more, where both were measured alike."""
    if WEAK not in found or STALE_1 not in on_two:
        return {}
    if planned.learner_of(found[WEAK]) != planned.learner_of(on_two[STALE_1]):
        return {}
    many, two = found[WEAK][0][runs.PACE], on_two[STALE_1][0][runs.PACE]
    note = f"{many.value:.3f} over {two.value:.3f} on two GPUs; {many.note}"
    return {"weak_scaling": Figure(many.value / two.value, "of the pace on two GPUs", "at least 0.9", note)}


def figures(found: dict[str, Part]) -> dict[str, Figure]:
    """Return the figures of all parts; of what several measured, the worst by the plain name."""
    named: dict[str, Figure] = {}
    for part, (measured, _) in found.items():
        for name, figure in measured.items():
            named[f"{name}_{part}"] = figure
    for name in dict.fromkeys(name for measured, _ in found.values() for name in measured):
        every = [measured[name] for measured, _ in found.values() if name in measured]
        named[name] = (min if name in _HIGHER else max)(every, key=lambda figure: figure.value)
    return named


if __name__ == "__main__":
    main()
