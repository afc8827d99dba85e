"""What can be checked of a configuration before a cluster is touched."""

from deploy.outputs import check_folder
from deploy.tracking.trackers import check_trackers
from rc_grpo.config import RunConfig
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
    """Check that each judge's model is there."""
    for name, judge in config.reward.judges.items():
        check_judge(name, judge)
