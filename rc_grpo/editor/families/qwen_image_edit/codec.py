"""Images and words to conditions, latents to images: the frozen ends of Qwen-Image-Edit, run once a task.

The text encoder sees the source, too, and the VAE sees it at a size of its own: ``editor.source_resolution``.
"""

from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as stock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_edit.sizes import SEEN_BY_TEXT_ENCODER
from rc_grpo.editor.families.qwen_image_edit.text import QwenText, check_template
from rc_grpo.editor.stock.arrays import to_array
from rc_grpo.editor.stock.codec_parts import StockCodec, as_images, decoded_in_parts, moments, stock_edit
from rc_grpo.editor.stock.source_size import STOCK_SOURCE, packed_sources, source_size
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions

NEGATIVE = " "
"""The negative prompt that the model's makers edit with: an empty one, so that there is a second pass."""


class QwenCodec(StockCodec):
    """Text encoder and VAE of a Qwen-Image-Edit pipeline.

    Args:
        pipeline: with processor, text encoder and VAE; its transformer is not used.
        config: the editor's configuration.
        offload: keep the text encoder in host memory while it has nothing to do.

    Raises:
        ValueError: the pipeline has a template of its own.
    """

    def __init__(self, pipeline: QwenImageEditPlusPipeline, config: EditorConfig, *, offload: bool = False) -> None:
        check_template(pipeline)
        super().__init__(pipeline, config, (pipeline.text_encoder,), offload=offload)
        self._text = QwenText(pipeline.tokenizer, config.text_tokens)

    @torch.no_grad()
    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8, an instruction, and references.

        Raises:
            ValueError: the instruction does not fit the text slots; cutting it would change what is asked for.
        """
        self._text.length(instruction).require(instruction)
        pictures = [Image.fromarray(image) for image in (self.fitted(source), *references)]
        packed, sources = packed_sources(self.pipeline, pictures, self.config.source_resolution)
        with self.text_encoders.at_work():
            arrays = {
                "reference": to_array(packed),
                "prompt": self._embedded(pictures, instruction),
                "negative": self._embedded(pictures, NEGATIVE),
            }
        text_valid = self._text.own(instruction, len(arrays["prompt"]))
        return Conditions(pictures[0].height, pictures[0].width, arrays, text_valid, sources)

    @torch.no_grad()
    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode packed latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        pipeline, vae = self.pipeline, self.pipeline.vae
        size = conditions.height, conditions.width
        unpacked = pipeline._unpack_latents(latents, *size, pipeline.vae_scale_factor).to(vae.device, vae.dtype)
        mean, deviation = moments(vae, unpacked)
        whole = unpacked / (1.0 / deviation) + mean
        return as_images(decoded_in_parts(lambda part: vae.decode(part, return_dict=False)[0][:, :, 0], whole, size))

    def _embedded(self, pictures: Sequence[Image.Image], text: str) -> NDArray[Any]:
        pipeline = self.pipeline
        seen = [
            pipeline.image_processor.resize(picture, *source_size(picture.height, picture.width, SEEN_BY_TEXT_ENCODER))
            for picture in pictures
        ]
        prompt, _ = pipeline.encode_prompt(prompt=text, image=seen, device=pipeline.vae.device)
        return to_array(prompt[0])


def codec(pipeline: QwenImageEditPlusPipeline, editor: EditorConfig, *, offload: bool) -> QwenCodec:
    """Wrap the text encoder and the VAE of a pipeline."""
    return QwenCodec(pipeline, editor, offload=offload)


def edit(
    pipeline: QwenImageEditPlusPipeline,
    editor: EditorConfig,
    source: Pixels,
    instruction: str,
    *references: Pixels,
    steps: int,
    seed: int,
) -> Pixels:
    """Edit an image with the stock pipeline, at its own size."""
    # The pipeline has no argument for the size it shows a source at.
    with mock.patch.object(stock, "VAE_IMAGE_SIZE", (editor.source_resolution or STOCK_SOURCE) ** 2):
        return stock_edit(
            pipeline,
            source,
            instruction,
            *references,
            steps=steps,
            seed=seed,
            negative_prompt=NEGATIVE if editor.guidance > 1 else None,
            true_cfg_scale=editor.guidance,
        )
