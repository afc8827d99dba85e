"""The configuration of a run: one frozen pydantic tree in which an unknown key is an error.

Each component is handed its own branch and nothing else. Defaults are those of the paper's editor; where the paper is
silent, the docstring of the equation's function says that the value is our reading.
"""

from rc_grpo.config.base import AutoscaleConfig, PoolConfig, Resources, actor_options
from rc_grpo.config.data import DataConfig, TaskSource
from rc_grpo.config.editor import ATTENTION_TARGETS, EditorConfig, LoraSettings
from rc_grpo.config.files import dump, load, parse
from rc_grpo.config.guards import GuardConfig
from rc_grpo.config.judges.base import JudgeConfig
from rc_grpo.config.judges.local import (
    ClipDirectionConfig,
    GroundTruthConfig,
    PickScoreConfig,
    RegionPreservationConfig,
    RewardHeadConfig,
)
from rc_grpo.config.judges.plugin import JudgePlugin
from rc_grpo.config.judges.served import (
    ClientConfig,
    EditScoreConfig,
    PairwiseConfig,
    SamplingConfig,
    ServedConfig,
    ServerConfig,
)
from rc_grpo.config.learner import LearnerConfig
from rc_grpo.config.objective import Algorithm, NftConfig, ObjectiveConfig
from rc_grpo.config.reading import ConfigError
from rc_grpo.config.reward import (
    AnyJudgeConfig,
    RewardConfig,
    dump_judge,
    parse_judge,
)
from rc_grpo.config.rollout import AcdConfig, ExploreConfig, MaskConfig, RolloutConfig, SdeConfig, Solver
from rc_grpo.config.run import (
    ClusterConfig,
    EvaluationConfig,
    LoopConfig,
    OutputConfig,
    RunConfig,
)

__all__ = [
    "ATTENTION_TARGETS",
    "AcdConfig",
    "Algorithm",
    "AnyJudgeConfig",
    "AutoscaleConfig",
    "ClientConfig",
    "ClipDirectionConfig",
    "ClusterConfig",
    "ConfigError",
    "DataConfig",
    "EditScoreConfig",
    "EditorConfig",
    "EvaluationConfig",
    "ExploreConfig",
    "GroundTruthConfig",
    "GuardConfig",
    "JudgeConfig",
    "JudgePlugin",
    "LearnerConfig",
    "LoopConfig",
    "LoraSettings",
    "MaskConfig",
    "NftConfig",
    "ObjectiveConfig",
    "OutputConfig",
    "PairwiseConfig",
    "PickScoreConfig",
    "PoolConfig",
    "RegionPreservationConfig",
    "Resources",
    "RewardConfig",
    "RewardHeadConfig",
    "RolloutConfig",
    "RunConfig",
    "SamplingConfig",
    "SdeConfig",
    "ServedConfig",
    "ServerConfig",
    "Solver",
    "TaskSource",
    "actor_options",
    "dump",
    "dump_judge",
    "load",
    "parse",
    "parse_judge",
]
