"""Judges that score in the actor's own process: measures, and models that transformers loads."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from rc_grpo.config.judges.base import JudgeConfig, Need


class GroundTruthConfig(JudgeConfig):
    """Compares with the true target: for worlds and data sets that know it."""

    needs: ClassVar[tuple[Need, ...]] = ("target",)

    kind: Literal["ground_truth"] = Field("ground_truth", description="which kind of judge this is")


class RegionPreservationConfig(JudgeConfig):
    """How much of the source is left outside the mask: a second judge, against over-editing."""

    asks_for_the_edit: ClassVar[bool] = False

    kind: Literal["region_preservation"] = Field(description="which kind of judge this is")
    measure: Literal["ssim", "lpips", "pixels"] = Field(
        "ssim",
        description="of what lies outside: structural similarity; 1 - LPIPS (wants torchvision and its SqueezeNet) "
        "or 1 - RMS difference of pixels in 0..1",
    )


class ClipDirectionConfig(JudgeConfig):
    """CLIP directional similarity: whether the image moved as the words did, from the source's to the caption."""

    needs: ClassVar[tuple[Need, ...]] = ("caption",)

    kind: Literal["clip_direction"] = Field(description="which kind of judge this is")
    model: str = Field("openai/clip-vit-large-patch14", description="folder or hub id of a CLIP model with safetensors")
    revision: str | None = Field(None, description="of the model on the hub; none is its newest")
    source_caption: str = Field(
        "a photo", min_length=1, description="what the source shows, in words that hold for every task"
    )


class PickScoreConfig(JudgeConfig):
    """PickScore: a CLIP model of human preference, asked how well the edit shows the task's caption."""

    needs: ClassVar[tuple[Need, ...]] = ("caption",)

    kind: Literal["pickscore"] = Field(description="which kind of judge this is")
    model: str = Field("yuvalkirstain/PickScore_v1", description="folder or hub id of a CLIP model with safetensors")
    revision: str | None = Field(None, description="of the model on the hub; none is its newest")
    processor: str | None = Field(
        None,
        description="folder or hub id (`@REVISION` may follow) of tokenizer and image processor; none: they lie with "
        "the model",
    )


class RewardHeadConfig(JudgeConfig):
    """A regression head on a vision-language model, such as EditReward: a number for each question, no words."""

    kind: Literal["reward_head"] = Field(description="which kind of judge this is")
    model: str = Field(description="folder or hub id of backbone and heads in safetensors")
    revision: str | None = Field(None, description="of the model on the hub; none is its newest")
    backbone: str | None = Field(
        None,
        description="folder or hub id (`@REVISION` may follow) of the vision-language model that it was trained from, "
        "whose config.json, tokenizer and processor are taken; none: they lie with the model",
    )
    prompts: Path | None = Field(None, description="YAML file with the questions; none is ours")
    reward_token: str = Field(
        "<|Reward|>",
        min_length=1,
        description="token of the questions at which the heads read; a new one of the tokenizer",
    )
    pooling: Literal["mean", "min", "sum"] = Field("mean", description="of the questions' numbers to the reward")
    positions: Literal["sequential", "spatial"] = Field(
        "sequential",
        description="of image tokens: one after the other, as EditReward was trained, or by row and column",
    )
    image_pixels: PositiveInt = Field(
        200_704, description="pixels of an image as it is shown; EditReward's 256 * 28 * 28"
    )
    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="of the backbone; heads are in float32")
