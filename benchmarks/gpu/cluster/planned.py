"""What ``rc-grpo plan`` says of runs that were measured, by the plan that there is when their figures are gathered."""

from typing import Any

from benchmarks.gpu.parts import Part
from benchmarks.results import Figure
from deploy.planning.capacity import make_plan
from deploy.planning.speeds import speeds
from rc_grpo.config import RunConfig


def asked(config: RunConfig, split: str, seconds: float, device: str) -> dict[str, Any]:
    """Return what a part leaves for `with_plan`.

    Args:
        config: of its run.
        split: of its GPUs.
        seconds: that an update took.
        device: name of its GPUs.
    """
    kind = next((name for name in speeds() if name in device), None)
    return {"config": config.model_dump(mode="json"), "split": split, "seconds": seconds, "gpu_type": kind}


def learner_of(part: Part) -> dict[str, Any]:
    """Return how the learner of a part's run was set up, but for how many ranks it had."""
    _, detail = part
    return {name: value for name, value in detail["plan"]["config"]["learner"].items() if name != "ranks"}


def with_plan(part: Part) -> Part:
    """Return a part with how far the plan is off, where it left what that takes and ran on GPUs that a plan knows."""
    figures, detail = part
    left = detail.get("plan")
    if left is None or left["gpu_type"] is None:
        return part
    plan = make_plan(RunConfig.model_validate(left["config"]), None, left["gpu_type"], split=left["split"])
    error = abs(plan.seconds - left["seconds"]) / left["seconds"]
    note = f"planned {plan.seconds:.1f} s, took {left['seconds']:.1f}"
    return {**figures, "plan_error": Figure(error, "fraction", "at most 0.15", note)}, detail
