"""Images and words to conditions, latents to images: the frozen ends of FLUX.2 klein, run once a task."""

import numpy as np
import torch
from diffusers import Flux2KleinKVPipeline, Flux2KleinPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux2_klein.architecture import LARGEST_SOURCE
from rc_grpo.editor.families.flux2_klein.text import KleinText
from rc_grpo.editor.stock.arrays import to_array
from rc_grpo.editor.stock.codec_parts import StockCodec, as_images, decoded_in_parts, fitted, stock_edit
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions


class KleinCodec(StockCodec):
    """Text encoder and VAE of a klein pipeline.

    Args:
        pipeline: with tokenizer, text encoder and VAE; its transformer is not used.
        config: the editor's configuration.
        offload: keep the text encoder in host memory while it has nothing to do.
    """

    def __init__(self, pipeline: Flux2KleinPipeline, config: EditorConfig, *, offload: bool = False) -> None:
        super().__init__(pipeline, config, (pipeline.text_encoder,), offload=offload)
        self._text = KleinText(pipeline.tokenizer, config.text_tokens)
        self._empty: NDArray[np.generic] | None = None
        if pipeline.vae.device.type == "cuda":
            pipeline.vae.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8, an instruction, and references, each at the edit's area.

        Raises:
            ValueError: the instruction does not fit the text slots; cutting it would change what is asked for.
        """
        text_valid = self._text.own(instruction)
        images = [self.fitted(image) for image in (source, *references)]
        height, width = images[0].shape[:2]
        packed, sources = zip(*map(self._source, images), strict=True)
        arrays = {"reference": to_array(torch.cat(packed))}
        with self.text_encoders.at_work():
            arrays["prompt"] = self._embedded(instruction)
            if not getattr(self.pipeline.config, "is_distilled", True):
                arrays["negative"] = self._empty = self._embedded("") if self._empty is None else self._empty
        return Conditions(height, width, arrays, text_valid, () if sources == ((height, width),) else sources)

    @torch.no_grad()
    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode packed latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        pipeline, vae = self.pipeline, self.pipeline.vae
        rows = conditions.height // self.token
        # In the VAE's precision, as the pipeline does: in another, pictures are other ones.
        latents = latents.to(vae.device, vae.dtype)
        unpacked = latents.transpose(1, 2).reshape(len(latents), latents.shape[2], rows, -1)
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(unpacked)
        deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).to(unpacked)
        whole = pipeline._unpatchify_latents(unpacked * deviation + mean)
        size = conditions.height, conditions.width
        return as_images(decoded_in_parts(lambda part: vae.decode(part, return_dict=False)[0], whole, size))

    def _source(self, image: Pixels) -> tuple[Tensor, tuple[int, int]]:
        """Return a source's latents ``[M, C]`` as the stock pipeline packs them, and the size it is shown at."""
        pipeline, vae, picture = self.pipeline, self.pipeline.vae, Image.fromarray(image)
        processor = pipeline.image_processor
        if picture.width * picture.height > LARGEST_SOURCE:
            picture = processor._resize_to_target_area(picture, LARGEST_SOURCE)
        height, width = (side // self.token * self.token for side in (picture.height, picture.width))
        pixels: Tensor = processor.preprocess(picture, height=height, width=width, resize_mode="crop")
        latents = pipeline._encode_vae_image(pixels.to(vae.device, vae.dtype), generator=None)
        return pipeline._pack_latents(latents)[0], (height, width)

    def _embedded(self, text: str) -> NDArray[np.generic]:
        prompt, _ = self.pipeline.encode_prompt(
            prompt=text, device=self.pipeline.vae.device, max_sequence_length=self.config.text_tokens
        )
        return to_array(prompt[0])


def codec(pipeline: Flux2KleinPipeline, editor: EditorConfig, *, offload: bool) -> KleinCodec:
    """Wrap the text encoder and the VAE of a pipeline."""
    return KleinCodec(pipeline, editor, offload=offload)


def edit(
    pipeline: Flux2KleinPipeline,
    editor: EditorConfig,
    source: Pixels,
    instruction: str,
    *references: Pixels,
    steps: int,
    seed: int,
) -> Pixels:
    """Edit an image with the stock pipeline, at its own size."""
    guidance = {} if isinstance(pipeline, Flux2KleinKVPipeline) else {"guidance_scale": editor.guidance}
    return stock_edit(
        pipeline,
        source,
        instruction,
        *(fitted(image, editor.resolution, 2 * pipeline.vae_scale_factor) for image in references),
        steps=steps,
        seed=seed,
        **guidance,
        max_sequence_length=editor.text_tokens,
    )
