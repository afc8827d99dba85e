"""Who scores the candidates: one or several judges, each a pool of actors of its own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args

from pydantic import (
    Field,
    SerializeAsAny,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from rc_grpo.config.base import Seconds, Strict
from rc_grpo.config.judges.base import JudgeConfig
from rc_grpo.config.judges.local import (
    ClipDirectionConfig,
    GroundTruthConfig,
    PickScoreConfig,
    RegionPreservationConfig,
    RewardHeadConfig,
)
from rc_grpo.config.judges.plugin import JudgePlugin, configured
from rc_grpo.config.judges.served import EditScoreConfig, PairwiseConfig
from rc_grpo.config.reading import ConfigError, in_lines

BuiltIn = (
    GroundTruthConfig
    | EditScoreConfig
    | PairwiseConfig
    | RegionPreservationConfig
    | ClipDirectionConfig
    | PickScoreConfig
    | RewardHeadConfig
)
JUDGES: dict[str, type[JudgeConfig]] = {
    get_args(config.model_fields["kind"].annotation)[0]: config for config in get_args(BuiltIn)
}
"""Configuration of each kind of judge that is built in."""


def _of_its_kind(value: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
    """Have a judge of another package validated by its own class, and every other by ours."""
    if isinstance(value, JudgePlugin):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind in JUDGES:
        return built_in(value)
    return configured(value, tuple(JUDGES))


if TYPE_CHECKING:
    AnyJudgeConfig = BuiltIn | JudgePlugin
else:
    # Written by its own class, or the keys of another package's judge would be missing in config.yaml.
    AnyJudgeConfig = SerializeAsAny[
        Annotated[Annotated[BuiltIn, Field(discriminator="kind")], WrapValidator(_of_its_kind)]
    ]


def parse_judge(tree: Mapping[str, Any]) -> AnyJudgeConfig:
    """Validate one judge's branch, as `dump_judge` gives it.

    Raises:
        ConfigError: it does not fit, or the package that brings its kind is not installed here.
    """
    try:
        judge: AnyJudgeConfig = TypeAdapter(AnyJudgeConfig).validate_python(dict(tree))
    except ValidationError as error:
        raise ConfigError("the judge's configuration does not fit:\n" + in_lines(error, "judge")) from error
    return judge


def dump_judge(config: AnyJudgeConfig) -> dict[str, Any]:
    """Return a judge's branch as plain values: what crosses processes, and no class of another package."""
    return config.model_dump(mode="json")


JudgeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class RewardConfig(Strict):
    """The judges by name. Each reward is z-scored over the minibatch on its own before the weighted sum."""

    judges: dict[JudgeName, AnyJudgeConfig] = Field({"ground_truth": GroundTruthConfig()}, min_length=1)
    prune: int | None = Field(
        None,
        ge=0,
        le=255,
        description="do not ask about a candidate of which no pixel of the edit region differs from the reference's by "
        "more than so many levels of 255: it gets no reward and is not learned from; none asks about all",
    )
    metrics_deadline_s: Seconds = Field(
        2.0, description="servers that have not told their metrics by then are left out"
    )

    @model_validator(mode="after")
    def _somebody_counts(self) -> Self:
        if not any(judge.weight > 0 for judge in self.judges.values()):
            raise ValueError("every judge has weight 0, so there is nothing to learn from; give one a weight")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each judge by name."""
        return {name: judge.weight for name, judge in self.judges.items()}
