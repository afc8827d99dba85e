"""Images and words to conditions, latents to images: the frozen ends of FLUX.1 Kontext, run once a task."""

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux_kontext.text import KontextTextCounter
from rc_grpo.editor.geometry import editing_size, resize_image
from rc_grpo.editor.stock.codec_parts import Waiting, as_images, decoded_in_parts
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.messages import Conditions, EditTask


class KontextCodec:
    """Text encoders and VAE of a Kontext pipeline.

    Args:
        pipeline: with tokenizers, text encoders and VAE; its transformer is not used.
        config: the editor's configuration.
        offload: keep the text encoders in host memory while they have nothing to do.
    """

    def __init__(self, pipeline: FluxKontextPipeline, config: EditorConfig, *, offload: bool = False) -> None:
        self._pipeline = pipeline
        self._config = config
        self._count = KontextTextCounter(pipeline.tokenizer, pipeline.tokenizer_2, config.text_tokens)
        self.token = int(pipeline.vae_scale_factor * 2)
        if pipeline.vae.device.type == "cuda":
            pipeline.vae.to(memory_format=torch.channels_last)
        encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
        self._text_encoders = Waiting(encoders, pipeline.vae.device, offload=offload)

    def encode(self, task: EditTask) -> Conditions:
        """Encode a task's source image and instruction, at the size it is edited at."""
        return self.encode_image(decode_rgb(task.source), task.instruction)

    @torch.no_grad()
    def encode_image(self, source: Pixels, instruction: str) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8 and an instruction.

        Raises:
            ValueError: the instruction does not fit the text slots; cutting it would change what is asked for.
        """
        pipeline, config = self._pipeline, self._config
        text_valid = self._text_valid(instruction)
        with self._text_encoders.at_work():
            prompt, pooled, _ = pipeline.encode_prompt(
                prompt=instruction, prompt_2=None, device=pipeline.vae.device, max_sequence_length=config.text_tokens
            )
        height, width = editing_size(source.shape[0], source.shape[1], config.resolution, self.token)
        pixels = torch.from_numpy(resize_image(source, height, width).copy()).permute(2, 0, 1)[None]
        image = (pixels.float() / 127.5 - 1).to(pipeline.vae.device, pipeline.vae.dtype)
        latents = pipeline._encode_vae_image(image, generator=None)
        reference = pipeline._pack_latents(latents, *latents.shape)
        arrays = {"prompt": prompt[0], "pooled": pooled[0], "reference": reference[0]}
        return Conditions(
            height=height,
            width=width,
            arrays={name: tensor.float().cpu().numpy() for name, tensor in arrays.items()},
            text_valid=text_valid,
        )

    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode packed latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        return as_images(decode(self._pipeline, latents, conditions.height, conditions.width))

    def _text_valid(self, instruction: str) -> NDArray[np.bool_]:
        length = self._count(instruction)
        if objection := length.objection:
            raise ValueError(f"{objection}: {instruction[:60]!r}...")
        return np.arange(length.slots) < length.tokens


def codec(pipeline: FluxKontextPipeline, editor: EditorConfig, *, offload: bool) -> KontextCodec:
    """Wrap the text encoders and the VAE of a pipeline."""
    return KontextCodec(pipeline, editor, offload=offload)


@torch.no_grad()
def decode(pipeline: FluxKontextPipeline, latents: Tensor, height: int, width: int) -> Tensor:
    """Decode packed latents ``[B, N, C]`` into images ``[B, 3, height, width]`` uint8, on the VAE's device."""
    vae = pipeline.vae
    unpacked = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    unpacked = (unpacked / vae.config.scaling_factor + vae.config.shift_factor).to(vae.device, vae.dtype)
    return decoded_in_parts(lambda part: vae.decode(part, return_dict=False)[0], unpacked, (height, width))


def edit(
    pipeline: FluxKontextPipeline, editor: EditorConfig, source: Pixels, instruction: str, *, steps: int, seed: int
) -> Pixels:
    """Edit an image with the stock pipeline, at its own size."""
    height, width = source.shape[:2]
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        image=Image.fromarray(source),
        prompt=instruction,
        height=height,
        width=width,
        guidance_scale=editor.guidance,
        num_inference_steps=steps,
        max_sequence_length=editor.text_tokens,
        generator=torch.Generator().manual_seed(seed),
        _auto_resize=False,
        max_area=height * width,
    )
    return np.asarray(result.images[0])
