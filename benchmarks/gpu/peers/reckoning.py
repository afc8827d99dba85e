"""From what was measured of each system to who is how much faster; and what others have published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gpu.parts import Part
from benchmarks.gpu.peers.setting import CANDIDATE, STEP
from benchmarks.results import Figure

OURS, FLOAT8, STOCK = "ours", "ours_float8", "stock"
RIVALS = ("flow_grpo", "flow_factory")
COULD_NOT = "could_not_run"
HOPPER = 989.0
"""TFLOP/s of an H100, H200 or H800, dense, bfloat16, as its maker says."""
Found = Mapping[tuple[str, int], Part]
"""Parts by system and side."""


@dataclass(frozen=True)
class Peer:
    """What stands for a rival at a size.

    Attributes:
        name: the rival, or what stands in its place.
        value: seconds.
        why: it is another that stands there, or None.
    """

    name: str
    value: float
    why: str | None


def figures(found: Found, sides: Sequence[int]) -> dict[str, Figure]:
    """Return all figures: of the first side the ratios by their plain names, of others by names that end in it."""
    named: dict[str, Figure] = {}
    for index, side in enumerate(side for side in sides if (OURS, side) in found):
        end = "" if index == 0 else f"_{side}"
        for what, system, measured in (
            ("rollout", OURS, CANDIDATE),
            ("update", OURS, STEP),
            ("rollout_float8", FLOAT8, CANDIDATE),
            ("update_float8", FLOAT8, STEP),
        ):
            figure = ratio(found, side, system, measured)
            if figure is not None:
                has_goal = index == 0 and system == OURS
                named[f"{what}_over_best_peer{end}"] = replace(figure, goal="at least 1.5" if has_goal else None)
    for (system, side), (measured_there, _) in sorted(found.items()):
        named |= {f"{system}_{side}_{name}": figure for name, figure in measured_there.items()}
    return named


def ratio(found: Found, side: int, system: str, measured: str) -> Figure | None:
    """Return how many times faster a system of ours is than the fastest of the rivals, or None if one is missing."""
    own = _figures(found, system, side).get(measured)
    peers = peers_of(found, side, measured)
    if own is None or not peers:
        return None
    best = min(peers, key=lambda peer: peer.value)
    said = [f"{side}x{side}, against {best.name}"] + [peer.why for peer in peers if peer.why is not None]
    return Figure(best.value / own.value, "x", None, "; ".join(said))


def peers_of(found: Found, side: int, measured: str) -> list[Peer]:
    """Return every rival's seconds at a size; stock diffusers and PEFT in the place of one that could not run."""
    stood = _figures(found, STOCK, side).get(measured)
    peers = []
    for rival in RIVALS:
        own = _figures(found, rival, side).get(measured)
        if own is not None:
            peers.append(Peer(rival, own.value, None))
        elif stood is not None:
            peers.append(Peer(STOCK, stood.value, f"in the place of {rival}: {reason(found, rival, side)}"))
    return peers


def reason(found: Found, system: str, side: int) -> str:
    """Return why a system was not measured at a size."""
    _, detail = found.get((system, side), ({}, {}))
    return str(detail.get(COULD_NOT, "it was not run"))


def images_per_gpu_second(candidate: float, step: float, steps: int, anchors: int, group: int) -> float:
    """Return candidates that one GPU makes and learns from in a second, which is what others publish.

    Args:
        candidate: seconds to make one.
        step: seconds to take one anchor through one step.
        steps: T.
        anchors: of a group.
        group: candidates of a group.
    """
    return 1.0 / (candidate + step * steps * anchors / group)


@dataclass(frozen=True)
class Published:
    """Somebody's own figure, of another model and another task: to see an order of magnitude by, no more.

    Attributes:
        system: whose.
        what: was trained, and how.
        where: it is published.
        gpu: it ran on.
        peak: TFLOP/s of such a GPU, dense, bfloat16, as its maker says.
        images: candidates made and learned from, in a step.
        gpus: of the run.
        seconds: of a step.
    """

    system: str
    what: str
    where: str
    gpu: str
    peak: float
    images: int
    gpus: int
    seconds: float

    @property
    def said(self) -> dict[str, Any]:
        """The figure per GPU, and per unit of what its GPU could do at best."""
        each = self.images / (self.gpus * self.seconds)
        return vars(self) | {
            "published_not_measured": True,
            "images_per_gpu_second": each,
            "images_per_peak_pflop": each / self.peak * 1e3,
        }


PUBLISHED = (
    Published(
        "verl-omni",
        "FlowGRPO, LoRA of rank 64, Qwen-Image by text alone (no edit), judged by OCR in the same step",
        "github.com/verl-project/verl-omni, docs/algo/performance.md at 0324b39, of 2026-09-10",
        "H800",
        HOPPER,
        512,
        4,
        420.0,
    ),
    Published(
        "verl-omni",
        "FlowDPPO, LoRA of rank 64, Qwen-Image by text alone (no edit), judged by OCR in the same step",
        "github.com/verl-project/verl-omni, docs/algo/performance.md at 0324b39, of 2026-09-10",
        "H200",
        HOPPER,
        512,
        4,
        540.0,
    ),
    Published(
        "UniRL",
        "BAGEL-7B edits, LoRA, judged by EditReward on the same GPUs",
        "github.com/Tencent-Hunyuan/UniRL, issue 307; 64 images a step by our own notes of 2026-11",
        "H20",
        148.0,
        64,
        8,
        73.2,
    ),
)
"""UniRL's klein 9B (pull request 394: 329 s a step on 8 GPUs) does not say which GPU: it cannot be converted."""


def _figures(found: Found, system: str, side: int) -> Mapping[str, Figure]:
    return found.get((system, side), ({}, {}))[0]
