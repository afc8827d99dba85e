"""One edit, as anyone with diffusers would make it: base model, and beside it the same with a LoRA."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deploy.records.contact_sheet import Row, contact_sheet
from rc_grpo.config import EditorConfig
from rc_grpo.editor.export import WEIGHTS_NAME
from rc_grpo.editor.geometry import editing_size, resize_image
from rc_grpo.editor.kontext import load_pipeline
from rc_grpo.images import decode_rgb


def edit_image(
    config: EditorConfig, image: Path, instruction: str, lora: Path | None, *, steps: int, seed: int
) -> tuple[Image.Image, Image.Image]:
    """Edit an image with the plain diffusers pipeline.

    Args:
        config: the editor.
        image: file to edit.
        instruction: what to do.
        lora: folder with LoRA weights, or None for the base model alone.
        steps: of the sampler.
        seed: of the noise, the same with and without LoRA.

    Returns:
        The edited image, and a sheet of source, base edit and LoRA edit side by side.

    Raises:
        ValueError: the image cannot be read or the LoRA is not there.
    """
    if not image.is_file():
        raise ValueError(f"no image at {image}")
    if lora is not None and not (lora / WEIGHTS_NAME).is_file():
        raise ValueError(f"no {WEIGHTS_NAME} in {lora}; a run leaves one in runs/NAME/lora")
    pipeline = load_pipeline(config)
    pipeline.set_progress_bar_config(disable=True)
    pixels = decode_rgb(image.read_bytes())
    height, width = editing_size(pixels.shape[0], pixels.shape[1], config.resolution, pipeline.vae_scale_factor * 2)
    source = resize_image(pixels, height, width)

    def run() -> Image.Image:
        result = pipeline(
            image=Image.fromarray(source),
            prompt=instruction,
            height=height,
            width=width,
            guidance_scale=config.guidance,
            num_inference_steps=steps,
            max_sequence_length=config.text_tokens,
            generator=torch.Generator().manual_seed(seed),
            _auto_resize=False,
            max_area=height * width,
        )
        edited: Image.Image = result.images[0]
        return edited

    edited = run()
    cells = [(source, "source"), (np.asarray(edited), "base model")]
    if lora is not None:
        pipeline.load_lora_weights(lora)
        edited = run()
        cells.append((np.asarray(edited), lora.name))
    return edited, contact_sheet([Row(instruction, tuple(cells))])
