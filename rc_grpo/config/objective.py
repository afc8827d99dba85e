"""The configuration of what is maximised, and by which algorithm."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from rc_grpo.config.base import Strict

Algorithm = Literal["rc_grpo", "flow_grpo", "diffusion_nft", "fdfo"]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]


class NftConfig(Strict):
    """DiffusionNFT's."""

    strength: PositiveFloat = Field(1.0, le=100, description="b, how far the implicit policies are from the old one")
    masked: bool = Field(True, description="weigh squares by region, as the metric does; or alike everywhere")


class ObjectiveConfig(Strict):
    """From scores to a gradient."""

    algorithm: Algorithm = Field(
        "rc_grpo",
        description="`rc_grpo` is the paper's, and Neighbor GRPO's under rollout.exploration `global`; the others are "
        "there to compare with: `flow_grpo` (with rollout.sde), `diffusion_nft`, `fdfo`",
    )

    acd_weight: float = Field(0.5, ge=0, description="of the attention reward beside the task reward (our reading)")
    min_valid: int = Field(3, ge=2, description="scores that a group needs; with fewer it is skipped (our reading)")
    min_std: float = Field(1e-3, ge=0, description="spread that a group's rewards need, or it is skipped (our reading)")
    advantage_clip: PositiveFloat = Field(5.0, description="advantages are clipped to plus or minus this (our reading)")
    quasi_norm_p: float | None = Field(
        None,
        ge=0.01,
        description="Neighbor GRPO's norm in the advantages' denominator (its best: 0.8); none is the paper's",
    )
    anchors: PositiveInt = Field(4, description="B anchors a group, never the reference")
    anchor_path: Literal["chain", "step"] = Field(
        "chain", description="gradient through every step of an anchor's path (Eq. 13), or through one step at a time"
    )
    trained_steps: PositiveInt | None = Field(
        None, description="K of the T steps (anchor_path `step` only); none is all"
    )
    old_path: Literal["stored", "recompute"] = Field(
        "stored",
        description="`recompute` when rollouts run in another precision or with another solver than the learner",
    )
    clip: PositiveFloat = Field(1e-4, description="ratios are clipped to 1 plus or minus this (our reading)")
    beta: float = Field(0.0, ge=0, description="weight of KL(pi_old || pi_theta)")
    reference_penalty: float = Field(
        0.0, ge=0, description="weight of the mean squared velocity distance to the base model"
    )
    norm_penalty: float = Field(
        0.0, ge=0, description="NormGuard: weight of what the velocity's norm exceeds the base model's by, squared"
    )
    nft: NftConfig = NftConfig()
    tau_edit: Temperature = Field(0.9, description="temperature of the metric inside the mask; larger weighs less")
    tau_base: Temperature = Field(1.1, description="temperature of the metric outside the mask")
    power: Literal[1, 2] = Field(2, description="exponent of the temperatures (our reading)")
