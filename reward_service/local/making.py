"""From a configuration to a judge without a server, and what can be checked of one before anything is started.

Each kind's module is imported where it is asked for: an actor has one judge, and some bring a second of imports.
"""

from pathlib import Path

from transformers import AutoConfig

from rc_grpo.config import (
    ClipDirectionConfig,
    GroundTruthConfig,
    PickScoreConfig,
    RegionPreservationConfig,
    RewardHeadConfig,
)
from rc_grpo.editor.files import named, pinned
from rc_grpo.storable import first_line
from reward_service.folders.judge_folder import check_weights
from reward_service.judge import Judge, JudgeSetupError
from reward_service.local.reward_head_prompts import HeadPrompts

LocalConfig = GroundTruthConfig | RegionPreservationConfig | ClipDirectionConfig | PickScoreConfig | RewardHeadConfig


def make_local(config: LocalConfig) -> Judge:
    """Return the judge that the configuration describes, with its model loaded.

    Raises:
        JudgeSetupError: what it needs is not there, or does not fit.
        PromptError: its questions cannot be used.
    """
    match config:
        case GroundTruthConfig():
            from reward_service.ground_truth import GroundTruthJudge

            return GroundTruthJudge()
        case RegionPreservationConfig():
            from reward_service.local.region_preservation import RegionPreservationJudge

            return RegionPreservationJudge.load(config)
        case ClipDirectionConfig():
            from reward_service.local.clip_judges import ClipDirectionJudge

            return ClipDirectionJudge.load(config)
        case PickScoreConfig():
            from reward_service.local.clip_judges import PickScoreJudge

            return PickScoreJudge.load(config)
        case RewardHeadConfig():
            from reward_service.local.reward_head import RewardHeadJudge

            return RewardHeadJudge.load(config)


def check_local(config: LocalConfig) -> None:
    """Check what can be checked without loading a large model.

    Raises:
        JudgeSetupError: the model is not to be found or is of another kind, or a measure's weights are missing.
        JudgeFolderError: the model's folder is not whole.
        PromptError: its questions cannot be used.
    """
    match config:
        case RegionPreservationConfig():
            make_local(config)
        case ClipDirectionConfig() | PickScoreConfig():
            from rc_grpo.evaluation.clip import load_processor
            from reward_service.local.clip_loading import clip_of

            _check_model(config.kind, config.model, config.revision, {"clip"})
            elsewhere = config.processor if isinstance(config, PickScoreConfig) else None
            with clip_of(config):
                load_processor(config.model, config.revision, elsewhere)
        case RewardHeadConfig():
            HeadPrompts.of(config)
            _check_whole(config.model)
            source, revision = pinned(config.backbone) if config.backbone else (config.model, config.revision)
            _check_model(config.kind, source, revision, {"qwen2_5_vl", "qwen3_vl"})


def _check_model(kind: str, name: str, revision: str | None, known: set[str]) -> None:
    try:
        found = AutoConfig.from_pretrained(name, revision=revision).model_type
    except (OSError, ValueError) as error:
        raise JudgeSetupError(
            f"{named(name, revision)!r}, which a judge of kind {kind} names, is neither a model's folder here nor on "
            f"the hub ({first_line(error)})"
        ) from error
    if found not in known:
        raise JudgeSetupError(f"{name!r} is a {found}; a judge of kind {kind} takes {' or '.join(sorted(known))}")
    _check_whole(name if "clip" in known else "")


def _check_whole(name: str) -> None:
    folder = Path(name)
    if name and folder.is_dir():
        check_weights(folder)
