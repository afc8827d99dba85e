"""Images and words to conditions, latents to images: the frozen ends of FLUX.1 Kontext, run once a task."""

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux_kontext.text import KontextTextCounter
from rc_grpo.editor.stock.codec_parts import StockCodec, as_images, decoded_in_parts, stock_edit
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions


class KontextCodec(StockCodec):
    """Text encoders and VAE of a Kontext pipeline.

    Args:
        pipeline: with tokenizers, text encoders and VAE; its transformer is not used.
        config: the editor's configuration.
        offload: keep the text encoders in host memory while they have nothing to do.
    """

    def __init__(self, pipeline: FluxKontextPipeline, config: EditorConfig, *, offload: bool = False) -> None:
        super().__init__(pipeline, config, (pipeline.text_encoder, pipeline.text_encoder_2), offload=offload)
        self._count = KontextTextCounter(pipeline.tokenizer, pipeline.tokenizer_2, config.text_tokens)
        if pipeline.vae.device.type == "cuda":
            pipeline.vae.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8 and an instruction.

        Raises:
            ValueError: the instruction does not fit the text slots, cutting it would change what is asked for; or there
                are references.
        """
        if references:
            raise ValueError(f"FLUX.1 Kontext edits with one source image, not with {1 + len(references)}")
        pipeline, config = self.pipeline, self.config
        text_valid = self._text_valid(instruction)
        with self.text_encoders.at_work():
            prompt, pooled, _ = pipeline.encode_prompt(
                prompt=instruction, prompt_2=None, device=pipeline.vae.device, max_sequence_length=config.text_tokens
            )
        fitted = self.fitted(source)
        pixels = torch.from_numpy(fitted.copy()).permute(2, 0, 1)[None]
        image = (pixels.float() / 127.5 - 1).to(pipeline.vae.device, pipeline.vae.dtype)
        latents = pipeline._encode_vae_image(image, generator=None)
        reference = pipeline._pack_latents(latents, *latents.shape)
        arrays = {"prompt": prompt[0], "pooled": pooled[0], "reference": reference[0]}
        return Conditions(
            height=fitted.shape[0],
            width=fitted.shape[1],
            arrays={name: tensor.float().cpu().numpy() for name, tensor in arrays.items()},
            text_valid=text_valid,
        )

    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode packed latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        return as_images(decode(self.pipeline, latents, conditions.height, conditions.width))

    def _text_valid(self, instruction: str) -> NDArray[np.bool_]:
        length = self._count(instruction)
        length.require(instruction)
        return np.arange(length.slots) < length.tokens


def codec(pipeline: FluxKontextPipeline, editor: EditorConfig, *, offload: bool) -> KontextCodec:
    """Wrap the text encoders and the VAE of a pipeline."""
    return KontextCodec(pipeline, editor, offload=offload)


@torch.no_grad()
def decode(pipeline: FluxKontextPipeline, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode packed latents ``[B, N, C]`` into images ``[B, 3, height, width]`` uint8, on the VAE's device."""
    vae = pipeline.vae
    # In the VAE's precision, as the pipeline does: in another, pictures are other ones.
    latents = latents.to(vae.device, vae.dtype)
    unpacked = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    whole = unpacked / vae.config.scaling_factor + vae.config.shift_factor
    return decoded_in_parts(lambda part: vae.decode(part, return_dict=False)[0], whole, (height, width))


def edit(
    pipeline: FluxKontextPipeline, editor: EditorConfig, source: Pixels, instruction: str, *, steps: int, seed: int
) -> Pixels:
    """Edit an image with the stock pipeline, at its own size."""
    return stock_edit(
        pipeline,
        source,
        instruction,
        steps=steps,
        seed=seed,
        guidance_scale=editor.guidance,
        max_sequence_length=editor.text_tokens,
        _auto_resize=False,
        max_area=source.shape[0] * source.shape[1],
    )
