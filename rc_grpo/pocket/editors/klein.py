"""The pocket editor of FLUX.2 klein's classes and layout, at eight million parameters."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from rc_grpo.editor.families.flux2_klein.full_size import SCHEDULER
from rc_grpo.editor.families.flux2_klein.transformer import position_ids, predict
from rc_grpo.editor.stock.chat_text import SPECIAL, byte_level_tokenizer
from rc_grpo.pocket import KLEIN_MODEL_PATH, KLEIN_TEXT_SLOTS
from rc_grpo.pocket.editors.protocol import GRID, LATENT_CHANNELS
from rc_grpo.pocket.grammar import vocabulary
from rc_grpo.pocket.objects import IMAGE_SIZE
from rc_grpo.pocket.tokenizers import learn_merges

HEADS, HEAD_WIDTH = 6, 32
TEXT_WIDTH = 48
READ = (9, 18, 27)
"""Of the text encoder's states, those that the stock pipeline lays side by side."""

_SPACE, _BLANK_LINE = "Ġ", "ĊĊ"
"""A space and an empty line as byte-level tokenizers write them."""

_ROLES, _THINKING = ("user", "assistant"), ("<think>", "</think>")
"""Of the chat template beside the instruction: its words, and what is no word."""

_STEPS = 8
"""For which training's schedule is shifted: the shift depends on their number, but little at the few used here."""


def build_tokenizer() -> Any:
    """Return a `Qwen2Tokenizer` (byte-level BPE) with a chat template, in which each word of the world is one token.

    It is one in front, there also with a capital, and another one behind a space. The template's words are one each.
    """
    words = {form for word in vocabulary() for form in (word, word.capitalize(), _SPACE + word)}
    return byte_level_tokenizer(learn_merges(sorted({*words, *_ROLES, _BLANK_LINE})), (*SPECIAL, *_THINKING))


def build_vae() -> Any:
    """Return an untrained `AutoencoderKLFlux2` of factor 8 and 32 channels: 128 pixels are 16x16 latents.

    The decoder is the larger: it repeats pixels to enlarge, and has to learn to tell the copies apart. Few groups are
    normed, for each that is forgets its mean and its contrast.
    """
    vae = AutoencoderKLFlux2(
        block_out_channels=(32, 48, 64, 80),
        decoder_block_out_channels=(32, 64, 96, 112),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    # Every residual branch starts as nothing.
    for name, module in vae.named_modules():
        if name.rsplit(".")[-1] == "conv2":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return vae


def build_transformer() -> Any:
    """Return an untrained `Flux2Transformer2DModel`: 128 channels a token, 2 double and 4 single blocks, 192 wide."""
    transformer = Flux2Transformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=len(READ) * TEXT_WIDTH,
        axes_dims_rope=(4, 12, 12, 4),
        guidance_embeds=False,
    )
    # As in DiT: every block starts as the identity, which makes the early steps of training useful.
    modulations = (
        transformer.double_stream_modulation_img,
        transformer.double_stream_modulation_txt,
        transformer.single_stream_modulation,
        transformer.norm_out,
    )
    for linear in (*(modulation.linear for modulation in modulations), transformer.proj_out):
        nn.init.zeros_(linear.weight)
    return transformer


def build_text_encoder(words: int) -> Any:
    """Return an untrained `Qwen3ForCausalLM` of 28 layers over a vocabulary of so many words."""
    encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=words,
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=READ[-1] + 1,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=16,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=TEXT_WIDTH**-0.5,
        )
    )
    # Every layer starts as the identity: all three states that are read are the words themselves.
    nn.init.normal_(encoder.model.embed_tokens.weight)
    for layer in encoder.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    # Of what stands behind the last state that is read, nothing is ever run.
    for unread in (*encoder.model.layers[READ[-1] :], encoder.model.norm):
        unread.requires_grad_(False)
    return encoder


def build_pipeline(seed: int = 0) -> Any:
    """Return an untrained `Flux2KleinPipeline`, tokenizer included; the same weights for the same seed."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=build_vae(),
        text_encoder=build_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=build_transformer(),
    )
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.transformer):
        part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class KleinField(nn.Module):
    """The trainable parts as one module, from token ids to velocity."""

    ids: Tensor
    text_ids: Tensor
    positions: Tensor
    causal: Tensor

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.transformer, self.text = pipeline.transformer, pipeline.text_encoder
        slots = torch.arange(KLEIN_TEXT_SLOTS)
        constants = {
            "ids": position_ids((GRID, GRID), (GRID, GRID)),
            "text_ids": Flux2KleinPipeline._prepare_text_ids(slots[None, :, None])[0],
            "positions": slots[None],
            "causal": slots[:, None] >= slots,
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(pipeline.transformer.device), persistent=False)

    def forward(self, noisy: Tensor, reference: Tensor, sigma: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """Return the velocity ``[B, 64, 128]`` at noisy targets ``[B, 64, 128]`` and sigmas ``[B]``."""
        states = torch.cat([noisy, reference], dim=1)
        output = predict(self.transformer, states, sigma, self.prompt(tokens, valid), self.text_ids, self.ids)
        return output[:, : noisy.shape[1]]

    def prompt(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Return the text as `Flux2KleinPipeline` hands it to the transformer, ``[B, KLEIN_TEXT_SLOTS, D]``.

        The pipeline collects the same states by hooks, which a compiled training cannot have, and runs what is behind
        the last of them, too.

        Args:
            tokens: ids ``[B, KLEIN_TEXT_SLOTS]``.
            valid: in that shape, 0 at padding.
        """
        model = self.text.model
        hidden = model.embed_tokens(tokens)
        rotary = model.rotary_emb(hidden, self.positions)
        mask = self.causal & valid.bool()[:, None, None, :]
        read = []
        for number, layer in enumerate(model.layers[: READ[-1]], start=1):
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
            if number in READ:
                read.append(hidden)
        return torch.cat(read, dim=-1)


class Klein:
    """The `rc_grpo.pocket.editors.protocol.PocketEditor` of ``Flux2KleinPipeline``."""

    name = "klein"
    pipeline = "Flux2KleinPipeline"
    folder = KLEIN_MODEL_PATH
    shift = math.exp(compute_empirical_mu(GRID * GRID, _STEPS))

    def build_vae(self) -> Any:
        """See `build_vae`."""
        return build_vae()

    def build_pipeline(self, seed: int) -> Any:
        """See `build_pipeline`."""
        return build_pipeline(seed)

    def measure(self, vae: Any, means: Tensor) -> None:
        """Leave mean and variance of each channel of a token in the autoencoder's batch norm."""
        tokens = Flux2KleinPipeline._patchify_latents(means)
        vae.bn.running_mean.copy_(tokens.mean(dim=(0, 2, 3)))
        vae.bn.running_var.copy_(tokens.var(dim=(0, 2, 3), correction=0))

    def tokens(self, vae: Any, means: Tensor) -> Tensor:
        """Return them packed and normed as `Flux2KleinPipeline` does."""
        patches = Flux2KleinPipeline._patchify_latents(means)
        mean, variance = (part.view(1, -1, 1, 1) for part in (vae.bn.running_mean, vae.bn.running_var))
        normed = (patches - mean) / torch.sqrt(variance + vae.config.batch_norm_eps)
        packed: Tensor = Flux2KleinPipeline._pack_latents(normed)
        return packed

    def read(self, pipeline: Any, instructions: Sequence[str]) -> tuple[Tensor, ...]:
        """Return ids and mask ``[B, KLEIN_TEXT_SLOTS]`` of the instructions inside the chat template."""
        tokenizer = pipeline.tokenizer
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        texts = [
            tokenizer.apply_chat_template([{"role": "user", "content": instruction}], **options)
            for instruction in instructions
        ]
        padded = {"padding": "max_length", "truncation": True, "max_length": KLEIN_TEXT_SLOTS}
        encoded = tokenizer(texts, return_tensors="pt", **padded)
        return encoded.input_ids, encoded.attention_mask

    def field(self, pipeline: Any) -> KleinField:
        """Return the trainable parts as one module."""
        return KleinField(pipeline)

    def install(self, pipeline: Any, field: Any) -> None:
        """Put a field's modules into a pipeline."""
        pipeline.register_modules(transformer=field.transformer, text_encoder=field.text)

    def save(self, pipeline: Any, folder: Path) -> None:
        """Write all weights in float16; the pipeline is left as it is.

        The text encoder's configuration says float32, in which transformers then loads it; see
        `rc_grpo.pocket.editors.kontext.Kontext.save`.
        """
        halves = {name: copy.deepcopy(getattr(pipeline, name)).half() for name in ("transformer", "vae")}
        Flux2KleinPipeline(**{**pipeline.components, **halves}).save_pretrained(folder)
        path = folder / "text_encoder" / "model.safetensors"
        save_file({name: weight.half() for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})

    def edit(
        self, pipeline: Any, source: Image.Image, instruction: str, noise: Tensor, steps: int
    ) -> NDArray[np.float32]:
        """Edit a picture once for each noise; of several pictures the pipeline would make one edit."""
        images: NDArray[np.float32] = pipeline(
            image=source,
            prompt=[instruction] * len(noise),
            latents=noise.transpose(1, 2).reshape(len(noise), -1, GRID, GRID).to(pipeline.device),
            height=IMAGE_SIZE,
            width=IMAGE_SIZE,
            num_inference_steps=steps,
            guidance_scale=1.0,
            max_sequence_length=KLEIN_TEXT_SLOTS,
            output_type="np",
        ).images
        return images


EDITOR = Klein()
