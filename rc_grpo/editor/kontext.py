"""FLUX.1 Kontext as a `FlowEditor`: loading its halves, and the whole of both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.config import AcdConfig, EditorConfig, LoraSettings, RolloutConfig
from rc_grpo.editor import compiling, full_size, lora, rollout_blocks
from rc_grpo.editor.codec import KontextCodec
from rc_grpo.editor.denoiser import KontextDenoiser, PolicyMaker
from rc_grpo.editor.merged import MergedPolicy
from rc_grpo.editor.policy import AdapterPolicy
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions, EditTask
from rc_grpo.pocket import MODEL_PATH

POCKET = "pocket"


class KontextEditor(KontextDenoiser):
    """Denoiser and codec in one object: what a rollout worker holds."""

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        codec: KontextCodec,
        config: EditorConfig,
        seed: int,
        policy: PolicyMaker = AdapterPolicy,
    ) -> None:
        super().__init__(transformer, config, codec.token, seed, policy)
        self._codec = codec

    def encode(self, task: EditTask) -> Conditions:
        """Encode a task's source image and instruction."""
        return self._codec.encode(task)

    def encode_image(self, source: Pixels, instruction: str) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8 and an instruction."""
        return self._codec.encode_image(source, instruction)

    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode packed latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        return self._codec.decode(latents, conditions)


class ModelNotFoundError(ValueError):
    """The editor named by the configuration cannot be loaded."""


def model_source(config: EditorConfig) -> str:
    """Return the folder or hub id behind ``editor.model``."""
    return str(MODEL_PATH) if config.model == POCKET else config.model


def resolve_device(config: EditorConfig) -> torch.device:
    """Return the device that ``editor.device`` names; `auto` takes CUDA where there is one.

    Raises:
        ValueError: CUDA is asked for and not there.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("editor.device is cuda, but this process sees no CUDA device; give its pool num_gpus > 0")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def load_denoiser(config: EditorConfig, seed: int) -> KontextDenoiser:
    """Load the transformer alone, with its LoRA attached: the learner's half.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it.
    """
    return KontextDenoiser(_load_transformer(config), config, dimensions(config).token, seed)


def load_editor(config: EditorConfig, seed: int) -> KontextEditor:
    """Load the whole editor, with its LoRA attached as adapters that can train.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it.
    """
    codec = KontextCodec(load_pipeline(config, transformer=None), config)
    return KontextEditor(_load_transformer(config), codec, config, seed)


def load_rollout_editor(config: EditorConfig, rollout: RolloutConfig, seed: int) -> KontextEditor:
    """Load the whole editor as a rollout wants it: LoRA merged into the weights, blocks compiled if so configured.

    Args:
        config: the editor.
        rollout: whether projections multiply in float8, and text encoders wait in host memory.
        seed: of the run.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it.
        ValueError: float8 is asked for where there is none.
    """
    transformer = _load_transformer(config)
    if rollout.fp8 or (transformer.device.type == "cuda" and transformer.dtype == torch.bfloat16):
        rollout_blocks.arrange(transformer, in_fp8=rollout.fp8)
    codec = KontextCodec(load_pipeline(config, transformer=None), config, offload=rollout.offload_encoders)
    editor = KontextEditor(transformer, codec, config, seed, MergedPolicy)
    if config.compile:
        compiling.compile_blocks(transformer)
    return editor


def load_pipeline(config: EditorConfig, **components: Any) -> FluxKontextPipeline:
    """Load diffusers' own pipeline on the editor's device; a component given as None is left out.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it.
    """
    if config.model == full_size.NAME:
        return full_size.build_pipeline(resolve_device(config), _dtype(config), **components)
    with _naming_the_model(config):
        return FluxKontextPipeline.from_pretrained(
            model_source(config), revision=config.revision, dtype=_dtype(config), **components
        ).to(resolve_device(config))


def _load_transformer(config: EditorConfig) -> FluxTransformer2DModel:
    if config.model == full_size.NAME:
        return full_size.build_transformer(resolve_device(config), _dtype(config))
    with _naming_the_model(config):
        transformer = FluxTransformer2DModel.from_pretrained(
            model_source(config), subfolder="transformer", revision=config.revision, dtype=_dtype(config)
        )
    return transformer.to(resolve_device(config))


def _dtype(config: EditorConfig) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]


@contextmanager
def _naming_the_model(config: EditorConfig) -> Iterator[None]:
    # An actor's log is no place for progress bars that redraw themselves.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    except OSError as error:
        raise ModelNotFoundError(
            f"editor.model {config.model!r} cannot be loaded: it must be a diffusers folder, a hub id you may read "
            f"(HF_TOKEN set, licence accepted), {POCKET!r}, or {full_size.NAME!r}. {error}"
        ) from error


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a transformer.

    Attributes:
        double: blocks with streams for text and image.
        single: blocks of one stream.
        width: of a stream.
        token: side of a token in pixels.
    """

    double: int
    single: int
    width: int
    token: int

    @property
    def layers(self) -> int:
        """Number of blocks, each with one joint attention."""
        return self.double + self.single

    @property
    def parameters(self) -> int:
        """Weights of all blocks: projections, and what modulates them; within 2 % of the whole of FLUX.1."""
        return self.width**2 * (self.double * (2 * 12 + 2 * 6) + self.single * (12 + 3))

    def lora_modules(self, settings: LoraSettings) -> int:
        """Return the number of modules that get a LoRA."""
        return lora.modules_of(self.double, self.single, settings.targets)

    def lora_parameters(self, settings: LoraSettings) -> int:
        """Return the number of LoRA weights."""
        return self.lora_modules(settings) * 2 * settings.rank * self.width


def dimensions(editor: EditorConfig) -> Dimensions:
    """Read a model's sizes from its configuration files alone.

    Raises:
        ModelNotFoundError: it is not there.
    """
    if editor.model == full_size.NAME:
        return Dimensions(**full_size.BLOCKS, width=24 * 128, token=full_size.TOKEN)
    with _naming_the_model(editor):
        source, revision = model_source(editor), editor.revision
        config = FluxTransformer2DModel.load_config(source, subfolder="transformer", revision=revision)
        vae = AutoencoderKL.load_config(source, subfolder="vae", revision=revision)
    return Dimensions(
        double=config["num_layers"],
        single=config["num_single_layers"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        token=2 ** len(vae["block_out_channels"]),
    )


def check_model(editor: EditorConfig, acd: AcdConfig) -> None:
    """Check from its configuration files alone that the model is there and has the layers that ACD names.

    Raises:
        ModelNotFoundError: it is not there.
        ValueError: a layer is not.
    """
    layers = dimensions(editor).layers
    beyond = [layer for layer in acd.layers if not 0 <= layer < layers]
    if acd.enabled and (beyond or not acd.layers):
        raise ValueError(f"rollout.acd.layers names {beyond or 'no layer'}; {editor.model} has layers 0..{layers - 1}")
