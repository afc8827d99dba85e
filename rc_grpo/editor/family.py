"""What a family of editors brings, so that everything else can name none: its architecture, its velocity, its codec.

A family is a folder like `rc_grpo.editor.families.flux_kontext`, in this package or another one, and is found by the
entry-point group ``rc_grpo.editor_families`` (see `rc_grpo.editor.registry`). docs/families.md writes one step by step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rc_grpo.config import EditorConfig
from rc_grpo.config.rollout import Fp8
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import BOTH_DIRECTIONS, Direction, Layout, Probe
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions, EditTask

__all__ = [
    "Architecture",
    "Body",
    "Bound",
    "Codec",
    "Family",
    "Forward",
    "Guidance",
    "Layout",
    "Probe",
    "Text",
    "TextCounter",
    "TextLength",
    "Tokens",
]

Forward = Callable[..., Any]
"""A transformer, or the training engine around it."""

Guidance = Literal["embedded", "cfg", "none"]
"""How ``editor.guidance`` acts: as an input of the model, by a second pass with the negative text, or not at all."""

Text = Literal["prompt", "negative"]


@dataclass(frozen=True)
class Tokens:
    """Lengths of one pass's sequence.

    Attributes:
        text: slots of the text.
        target: of the image that is made.
        sources: of all source images together.
        prefix: how many of text and sources a pass finds in a `Prefix`, once that is computed.
        images: that the sources are.
    """

    text: int
    target: int
    sources: int
    prefix: int = 0
    images: int = 1

    @property
    def total(self) -> int:
        """All of them, the prefix included."""
        return self.text + self.target + self.sources


@dataclass(frozen=True)
class TextLength:
    """How long an instruction is to an editor.

    Attributes:
        tokens: of the instruction, with what the model wants around it.
        slots: that there are for them.
        cut: in words, what a further encoder leaves unread of a text that fits all the same; None if it reads all.
    """

    tokens: int
    slots: int
    cut: str | None = None

    @property
    def objection(self) -> str | None:
        """Why the instruction cannot be encoded, or None; cutting it would change what is asked for."""
        if self.tokens <= self.slots:
            return None
        return (
            f"the instruction has {self.tokens} tokens and editor.text_tokens is {self.slots}; "
            "shorten it, or raise editor.text_tokens"
        )

    def require(self, instruction: str) -> None:
        """Refuse an instruction of this length if it does not fit.

        Raises:
            ValueError: it does not; cutting it would change what is asked for.
        """
        if self.objection is not None:
            raise ValueError(f"{self.objection}: {instruction[:60]!r}...")


TextCounter = Callable[[str], TextLength]


@dataclass(frozen=True)
class Architecture(ABC):
    """A model's sizes, known from its configuration files alone.

    Attributes:
        layers: blocks, each with one joint attention.
        width: of a stream.
        token: side of a token in pixels.
        parameters: of the transformer, about.
        encoders_gib: of text encoders and VAE in bfloat16.
        projections: linear layers of the blocks by full name, ``(out, in)``.
        attention_rows: of a projection that is attention's and the MLP's in one, how many of its first rows are
            attention's.
        directions: in which attention concentrates; a model whose text never sees the target has ``to_text`` alone.
        side: an edited image has sides of a multiple of so many tokens.
        shares_prefix: text and source, or source alone, never see the target, so that ``editor.prefix`` may be shared.
        kept: numbers that an update keeps of a token for each channel of each block, all activations stored and blocks
            compiled, as measured; of an architecture that was not, the most that any does.
    """

    layers: int
    width: int
    token: int
    parameters: int
    encoders_gib: float
    projections: Mapping[str, tuple[int, int]]
    attention_rows: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    directions: frozenset[Direction] = field(default=BOTH_DIRECTIONS, kw_only=True)
    side: int = field(default=1, kw_only=True)
    shares_prefix: bool = field(default=False, kw_only=True)
    kept: float = field(default=29.0, kw_only=True)

    @abstractmethod
    def tokens(self, editor: EditorConfig) -> Tokens:
        """Return the lengths of an edit of a square image at ``editor.resolution``, with ``editor.sources`` of them."""

    @abstractmethod
    def forward_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the TFLOP of one pass of one image: of its projections, of its attention."""

    def prefill_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the same of what passes of these lengths find in a `Prefix`: none where they find nothing."""
        return self.forward_tflop(replace(tokens, target=0, prefix=0)) if tokens.prefix else (0.0, 0.0)


class Bound(Protocol):
    """One text of one task, on the device, with all that the model wants beside it."""

    layout: Layout

    def prefill(self, forward: Forward) -> Prefix | None:
        """Compute what does not depend on the target; None for a model in which everything does."""
        ...

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        """Return the velocity, noise minus data, at states ``[B, N, C]``: their shape, float32 both ways.

        Args:
            forward: what to call the model by.
            x: states at ``sigma``.
            sigma: noise level, 1 to 0.
            prefix: what `prefill` gave; None has everything computed in this pass.
        """
        ...


class Body(Protocol):
    """A transformer of the family, and how it is spoken to."""

    transformer: nn.Module
    blocks: Sequence[Any]
    """In the order in which ``rollout.acd.layers`` counts; each has its joint attention in ``attn``."""
    architecture: Architecture
    guidance: Guidance

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        """Return ``(N, C)`` of the target's latents."""
        ...

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the schedule ``[T+1]`` float64 on the CPU, from 1 down to 0, as the stock pipeline's for T steps."""
        ...

    def bind(self, conditions: Conditions, text: Text, guidance: float) -> Bound:
        """Put a task on the device with one of its texts.

        Args:
            conditions: of the task.
            text: ``negative`` is asked for under guidance `cfg` alone.
            guidance: its scale, for a model that embeds it.
        """
        ...

    def combine(self, positive: Tensor, negative: Tensor, scale: float) -> Tensor:
        """Return the guided velocity of two, rescaled where the stock pipeline rescales."""
        ...

    def processor(self, block: Any, probe: Probe | None) -> Any:
        """Return an attention processor for a block that leaves what a probe finds in ``concentration``, ``[B]``."""
        ...

    def varying(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Sequence[tuple[Tensor, int]]:
        """Return tensors of a block's inputs and the axes along which they differ from task to task; most have none.

        A text bound at its true length is one: compiled blocks have one graph for all lengths. Say so in
        `Layout.text_varies`, too.

        Args:
            inputs: of a block's call, as the transformer makes it; under gradient checkpointing the block comes first.
            named: those by name.
        """
        ...

    def canary(self) -> Conditions:
        """Return small fixed conditions, on which a LoRA's effect is measured; the same in every process."""
        ...

    def arrange(self, *, fp8: Fp8) -> None:
        """Rearrange the blocks for rollouts on a GPU, and put projections into float8 if asked for, or attention, too.

        Projections that get a LoRA keep their names and their memory.

        Raises:
            ValueError: float8 is asked for where there is none, or a target's projection would lose its name.
        """
        ...


class Codec(Protocol):
    """Images and words to conditions, latents to images. Runs once a task, and only where images are made."""

    token: int

    def encode(self, task: EditTask) -> Conditions:
        """Encode a task's source images and instruction."""
        ...

    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8 and an instruction.

        Args:
            source: the image to edit.
            instruction: what to do.
            references: further source images, of any size; none for a family of one source.

        Raises:
            ValueError: the instruction does not fit, cutting it would change what is asked for; or there are more
                sources than the model takes.
        """
        ...

    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        ...


class Family(Protocol):
    """A family of editors."""

    name: str
    """In ``editor.family``."""
    models: frozenset[str]
    """Short names that ``editor.model`` may have for it, each of one family alone."""
    hub_ids: Mapping[str, str]
    """Published models, and which short name of `models` has their sizes with random weights."""
    pipeline: str
    """Class of diffusers' pipeline, as a model's ``model_index.json`` names it."""
    guidance: Guidance
    """Of its models for training; a distilled one may have none (see `Body.guidance`)."""
    sources: int
    """Most source images of an edit, up to `rc_grpo.config.editor.MOST_SOURCES`; what codecs and `edit` take behind
    the first one are references."""
    source_resolution: int | None
    """Side of the square whose area its stock pipeline shows a source at, whatever the edit's; None: the edit's."""

    def architecture(self, editor: EditorConfig) -> Architecture:
        """Read a model's sizes from its configuration files.

        Raises:
            rc_grpo.editor.files.ModelNotFoundError: they are not there.
        """
        ...

    def text_counter(self, editor: EditorConfig) -> TextCounter:
        """Load what counts an instruction's tokens, such as the tokenizers; no weights. It counts as the codec does.

        Raises:
            rc_grpo.editor.files.ModelNotFoundError: it is not there.
        """
        ...

    def load_transformer(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the transformer alone.

        Raises:
            rc_grpo.editor.files.ModelNotFoundError: it is not there.
        """
        ...

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Load diffusers' own pipeline; a component given as None is left out.

        Raises:
            rc_grpo.editor.files.ModelNotFoundError: it is not there.
        """
        ...

    def body(self, transformer: nn.Module, editor: EditorConfig) -> Body:
        """Wrap a transformer that `load_transformer` gave."""
        ...

    def codec(self, pipeline: Any, editor: EditorConfig, *, offload: bool) -> Codec:
        """Wrap the encoders and the VAE of a pipeline; ``offload`` keeps text encoders in host memory between tasks."""
        ...

    def edit(
        self,
        pipeline: Any,
        editor: EditorConfig,
        source: Pixels,
        instruction: str,
        *references: Pixels,
        steps: int,
        seed: int,
    ) -> Pixels:
        """Edit an image with the stock pipeline, as anyone with diffusers would, at the size of ``source``.

        Args:
            pipeline: whole, with or without a LoRA loaded.
            editor: its configuration.
            source: ``[H, W, 3]`` uint8, at the size it is edited at.
            instruction: what to do.
            references: as of `Codec.encode_image`.
            steps: of the sampler.
            seed: of the noise.
        """
        ...
