"""The configuration of rollouts: how a group of candidates is made."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rc_grpo.algorithm.method import Method
from rc_grpo.config.base import Fraction, PoolConfig, PositiveFraction, Strict

Solver = Method
Fp8 = bool | Literal["gemm", "all"]
"""What of a rollout multiplies in float8; true means its projections."""


class MaskConfig(Strict):
    """How a pixel mask becomes a token mask (our reading)."""

    threshold: Fraction = Field(
        0.0, description="a token is inside when more than this share of its pixels is; 0 means any pixel"
    )
    dilation: int = Field(0, ge=0, description="tokens by which the region grows on every side")


class AcdConfig(Strict):
    """Attention concentration density."""

    enabled: bool = Field(True, description="record it while rolling out; needed if objective.acd_weight is above 0")
    layers: PositiveFraction | tuple[NonNegativeInt, ...] = Field(
        10 / 57,
        description="joint-attention layers: a share of them, the last ones, or a list, counted over the blocks as the "
        "model runs them; the default is what the last 10 of the paper's editor's 57 are",
    )
    direction: Literal["from_text", "to_text"] = Field(
        "from_text",
        description="from the text on the region (Eq. 16), or from the region on the text: to compare, and for models "
        "whose text never sees the image that is made",
    )
    text_tokens: Literal["valid", "all"] = Field(
        "valid", description="the prompt's own tokens, or padding as well (our reading)"
    )

    def chosen(self, layers: int) -> tuple[int, ...]:
        """Return the recorded layers of a model that has so many."""
        if isinstance(self.layers, tuple):
            return self.layers
        return tuple(range(layers - max(1, round(self.layers * layers)), layers))


class SdeConfig(Strict):
    """Steps with noise of their own, which have a density: Flow-GRPO, and MixGRPO in a window of steps."""

    level: PositiveFloat = Field(0.7, le=10, description="a, Flow-GRPO's noise level")
    window: PositiveInt | None = Field(
        None, description="steps that are stochastic, MixGRPO's window; none is all of them, which is Flow-GRPO"
    )
    move_every: PositiveInt = Field(25, description="updates after which the window moves by a step")

    def moved(self, version: int) -> int:
        """Return how often the window has moved when a policy of this number acts."""
        return version // self.move_every


class ExploreConfig(Strict):
    """Explore, then exact: a large pool made cheaply and judged, of which the best and the worst are made again."""

    candidates: int = Field(ge=4, description="M, the pool that a group is chosen from, the reference included")
    steps: PositiveInt | None = Field(
        None, description="of the pool's ODE; none is a third of rollout.steps, rounded down, at least 1"
    )
    fp8: bool = Field(True, description="make the pool in float8 where the GPU has it and the editor is in bfloat16")

    @model_validator(mode="before")
    @classmethod
    def _count_alone(cls, value: Any) -> Any:
        return {"candidates": value} if isinstance(value, int) and not isinstance(value, bool) else value


class RolloutConfig(PoolConfig):
    """How a group of candidates is made."""

    group_size: int = Field(12, ge=3, description="G, the unperturbed reference included")
    steps: PositiveInt = Field(8, description="T, steps of the ODE")
    solver: Solver = Field("euler", description="of the ODE; the learner uses the same")
    exploration: Literal["rdp", "global"] = Field(
        "rdp", description="perturb by region, or alike everywhere: Neighbor GRPO, the paper's baseline"
    )
    alpha_edit: Fraction = Field(0.3, description="perturbation inside the mask, share of fresh noise (our reading)")
    alpha_base: Fraction = Field(0.01, description="perturbation outside the mask (our reading); not under `global`")
    sde: SdeConfig | None = Field(
        None,
        description="sample by an SDE; for objective.algorithm `flow_grpo` alone (exploration `global` then; "
        "alpha_edit 1 gives each candidate a noise of its own, 0 the same to all)",
    )
    explore: ExploreConfig | None = Field(
        None,
        description="learn from the best and the worst of a pool of so many candidates, such as 48, made in few steps "
        "and judged: group_size of them are made again exactly; a number is its `candidates`",
    )
    mask: MaskConfig = MaskConfig()
    acd: AcdConfig = AcdConfig()
    fp8: Fp8 = Field(
        False,
        description="multiply in float8: faster, less exact; needs objective.old_path `recompute` and a GPU. `gemm`, "
        "or true: projections; `all`: attention, too, on a Hopper GPU with the package fa3-fwd",
    )
    offload_encoders: bool = Field(
        False,
        description="keep text encoders in host memory while they have nothing to do (9 GiB of the paper's editor)",
    )

    @property
    def candidates(self) -> int:
        """Candidates whose noise is drawn for a task: G, or the pool's M."""
        return self.group_size if self.explore is None else self.explore.candidates

    @property
    def exploring_steps(self) -> int:
        """Steps in which a pool is made."""
        chosen = None if self.explore is None else self.explore.steps
        return chosen or max(1, self.steps // 3)

    @property
    def explore_cost(self) -> float:
        """Forward passes of a pool and its group, over those of a group alone."""
        if self.explore is None:
            return 1.0
        return 1.0 + self.candidates * self.exploring_steps / (self.group_size * self.steps)

    @model_validator(mode="after")
    def _pool_is_larger(self) -> Self:
        if self.explore is None:
            return self
        if self.explore.candidates <= self.group_size:
            raise ValueError(
                f"rollout.explore.candidates = {self.explore.candidates} leaves nothing to choose for a group of "
                f"rollout.group_size = {self.group_size}; explore more candidates, or set rollout.explore=null"
            )
        if self.explore.steps is not None and self.explore.steps > self.steps:
            raise ValueError(
                f"rollout.explore.steps = {self.explore.steps} > rollout.steps = {self.steps}: a pool is to be cheaper "
                "than the group"
            )
        if self.sde is not None:
            raise ValueError("rollout.explore does not go with rollout.sde, whose paths are not made again by steps")
        return self
