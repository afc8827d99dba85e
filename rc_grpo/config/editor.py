"""The editor's branch of the configuration: which model, how it is run, what of it is trained."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from rc_grpo.config.base import Strict

MOST_SOURCES = 4
"""Of a task: the image that is edited, and three to refer to."""

ATTENTION_TARGETS = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
)


class LoraSettings(Strict):
    """The trained weights: LoRA on projections of the transformer."""

    rank: PositiveInt = Field(32, description="of each pair of matrices")
    alpha: PositiveFloat = Field(64.0, le=1e6, description="the product is scaled by alpha / rank")
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ATTENTION_TARGETS,
        min_length=1,
        description="projections that get a LoRA, by the end of their names, each of which must match; the default is "
        "the attention of diffusers' double-stream blocks",
    )
    fused: Literal["all", "attention"] = Field(
        "all",
        description="which rows of a projection that is attention's and the MLP's in one: `attention` leaves the MLP's "
        "rows of B at zero, as a LoRA on attention alone has them",
    )


class EditorConfig(Strict):
    """Which editor, and how it is run."""

    model: str = Field(
        "",
        description="a diffusers folder, a hub id, `pocket` or `pocket-klein` for one that comes with the package, or "
        "`full-size` for a family's published architecture with random weights, to measure on; there is no default "
        "to run with",
    )
    family: str = Field(
        "auto", description="which family the model is of; auto goes by its name, then by the pipeline it is for"
    )
    revision: str | None = Field(None, description="hub revision; name one, so that a run can be repeated")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="of the base model; the LoRA trains in float32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is cuda where there is one")
    resolution: PositiveInt = Field(
        512, le=16384, description="side in pixels of the square whose area an image is resized to"
    )
    source_resolution: PositiveInt | None = Field(
        None,
        le=16384,
        description="side in pixels of the square whose area a source image is shown at, for a family that sizes it "
        "apart from the edit; none: as its stock pipeline does",
    )
    sources: PositiveInt = Field(
        1,
        le=MOST_SOURCES,
        description="most source images that a task may have, the one that is edited and references, for a family that "
        "takes several; time and memory are planned for so many",
    )
    prefix: Literal["none", "shared"] = Field(
        "none",
        description="whether keys and values of text and source, or of source alone, are computed once for all steps "
        "and candidates of a task, in rollouts and in the learner alike: for a family in which these never see the "
        "image that is made",
    )
    guidance: PositiveFloat = Field(
        2.5,
        le=1000,
        description="when training, as the family guides: embedded in the model, or classifier-free by a second pass "
        "above 1, which the learner goes back through, too",
    )
    text_tokens: PositiveInt = Field(
        512, description="text slots; where padding is attended, the length is part of the policy"
    )
    compile: bool = Field(
        False, description="compile the transformer's blocks, in rollouts and in the learner: worth its minute on a GPU"
    )
    lora: LoraSettings = LoraSettings()
