"""Images and words to conditions, latents to images: the frozen ends of Qwen-Image-2.1, run once a task.

Text encoder and VAE see the source at one size, ``editor.source_resolution``: where the one has a token, the
transformer gets the four latents of the other.
"""

from typing import ClassVar

import numpy as np
import torch
from diffusers import QwenImage21Pipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_21.architecture import SIDE
from rc_grpo.editor.families.qwen_image_21.text import text_of
from rc_grpo.editor.stock.arrays import to_array
from rc_grpo.editor.stock.codec_parts import StockCodec, as_images, decoded_in_parts, moments, stock_edit
from rc_grpo.editor.stock.source_size import STOCK_SOURCE, packed_sources
from rc_grpo.images import Pixels, on_white
from rc_grpo.messages import Conditions

NEGATIVE = " "
"""The negative prompt under a guidance, which the model's makers edit without: an empty one."""


class Qwen21Codec(StockCodec):
    """Text encoder and VAE of a Qwen-Image-2.1 pipeline.

    Args:
        pipeline: with processor, text encoder and VAE; its transformer is not used.
        config: the editor's configuration.
        offload: keep the text encoder in host memory while it has nothing to do.

    Raises:
        ValueError: the pipeline has a template of its own.
    """

    latents: ClassVar[int] = 1
    multiple: ClassVar[int] = SIDE

    def __init__(self, pipeline: QwenImage21Pipeline, config: EditorConfig, *, offload: bool = False) -> None:
        self._text = text_of(pipeline, config.text_tokens)
        super().__init__(pipeline, config, (pipeline.text_encoder,), offload=offload)

    @torch.no_grad()
    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8, an instruction, and references.

        Raises:
            ValueError: the instruction does not fit the text slots, cutting it would change what is asked for; or the
                text encoder cannot see a source at that size.
        """
        self._text.length(instruction).require(instruction)
        pictures = [Image.fromarray(image).convert("RGBA") for image in (self.fitted(source), *references)]
        packed, sources = packed_sources(self.pipeline, pictures, self.config.source_resolution)
        resize = self.pipeline.image_processor.resize
        seen = [resize(picture, *size) for picture, size in zip(pictures, sources, strict=True)]
        with self.text_encoders.at_work():
            prompt, is_source = self._embedded(seen, instruction)
            negative, _ = self._embedded(seen, NEGATIVE)
        # The sources come ahead of the words: their slots are the same in both texts.
        slots = is_source.nonzero()[:, 0].cpu().numpy()
        arrays = {"reference": packed, "prompt": prompt, "negative": negative}
        if len(slots) * SIDE**2 != len(packed):
            shown = " or ".join(f"{high}x{wide}" for high, wide in sources)
            raise ValueError(
                f"the text encoder takes a source of {shown} pixels at another size; set editor.source_resolution to "
                "one that it takes"
            )
        return Conditions(
            height=pictures[0].height,
            width=pictures[0].width,
            arrays={name: to_array(tensor) for name, tensor in arrays.items()} | {"slots": slots},
            text_valid=self._text.own(instruction),
            sources=sources,
        )

    @torch.no_grad()
    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode packed latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8, what is transparent on white."""
        pipeline, vae = self.pipeline, self.pipeline.vae
        size = conditions.height, conditions.width
        unpacked = pipeline._unpack_latents(latents, *size, pipeline.vae_scale_factor).to(vae.device, vae.dtype)
        mean, deviation = moments(vae, unpacked)
        whole = unpacked * deviation + mean
        # In the pipeline's own precision: of a colour and of how much of it is seen, two roundings would add up.
        to_unit = pipeline.image_processor.denormalize
        pictures = decoded_in_parts(lambda part: vae.decode(part, return_dict=False)[0][:, :, 0], whole, size, to_unit)
        return np.stack([on_white(Image.fromarray(image)) for image in as_images(pictures)])

    def _embedded(self, seen: list[Image.Image], text: str) -> tuple[Tensor, Tensor]:
        """Return a text's states ``[L, D]``, and where among them the sources' slots are, ``[L]`` bool."""
        pipeline = self.pipeline
        prompt, _, is_source = pipeline.encode_prompt(prompt=text, image=seen, device=pipeline.vae.device)
        return prompt[0], is_source[0]


def codec(pipeline: QwenImage21Pipeline, editor: EditorConfig, *, offload: bool) -> Qwen21Codec:
    """Wrap the text encoder and the VAE of a pipeline."""
    return Qwen21Codec(pipeline, editor, offload=offload)


def edit(
    pipeline: QwenImage21Pipeline,
    editor: EditorConfig,
    source: Pixels,
    instruction: str,
    *references: Pixels,
    steps: int,
    seed: int,
) -> Pixels:
    """Edit an image with the stock pipeline, at its own size; its cache is on where ``editor.prefix`` is shared."""
    return stock_edit(
        pipeline,
        source,
        instruction,
        *references,
        steps=steps,
        seed=seed,
        negative_prompt=NEGATIVE if editor.guidance > 1 else None,
        true_cfg_scale=editor.guidance,
        output_resolution=editor.source_resolution or STOCK_SOURCE,
        use_kv_cache=editor.prefix == "shared",
    )
