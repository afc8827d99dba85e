"""What can be checked of a configuration before a cluster is touched."""

from deploy.outputs import check_folder
from deploy.tracking.trackers import check_trackers
from rc_grpo.config import ConfigError, RunConfig
from rc_grpo.editor.export import check_lora
from rc_grpo.editor.loading import check_model
from reward_service.factory import check_judge


def check_training(config: RunConfig) -> None:
    """Check everything that a training needs: trackers, editor, the LoRA to begin with, judges, the runs' folder.

    Raises:
        TrackerError: a tracker is not installed, or has no key.
        ValueError: the editor, one of its layers, the LoRA or a judge's model is not there or does not fit, or nothing
            can be written into ``output.root``.
    """
    check_trackers(config.output)
    check_editor(config)
    if config.learner.start_from is not None:
        check_lora(config.editor, config.learner.start_from)
    check_judges(config)
    check_folder(config.output.root, "output.root")


def check_editor(config: RunConfig) -> None:
    """Check that the editor is there, and has the layers that are to be recorded."""
    check_model(config.editor, config.rollout.acd)


def check_judges(config: RunConfig) -> None:
    """Check that evaluations have a judge that can measure them, and that each judge's model is there.

    Raises:
        ValueError: they have none, or it is not.
    """
    _check_measure(config)
    for name, judge in config.reward.judges.items():
        check_judge(name, judge)


def _check_measure(config: RunConfig) -> None:
    judges, evaluation = config.reward.judges, config.evaluation
    relative = [name for name, judge in judges.items() if judge.relative]
    if not evaluation.tasks or not relative or config.loop.feed is not None:
        return
    way_out = (
        "compares the candidates of a group with each other, and an evaluation has one edit of each task; add a judge "
        "that scores an edit by itself"
    )
    if len(relative) == len(judges):
        raise ConfigError(
            f"evaluation.tasks = {evaluation.tasks}, but judge {relative[0]!r} {way_out} (weight 0 will do), or set "
            "evaluation.tasks=0"
        )
    if evaluation.measured_by in relative:
        raise ConfigError(f"evaluation.measured_by names {evaluation.measured_by!r}, which {way_out} there")
