"""One edit, as anyone with diffusers would make it: base model, and beside it the same with a LoRA."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from deploy.evaluating.tasks import InstructionCheck
from deploy.outputs import check_apart, check_picture
from deploy.records.contact_sheet import Row, contact_sheet
from rc_grpo.config import EditorConfig
from rc_grpo.data.text import read_text
from rc_grpo.editor.export import check_lora, for_any_loader
from rc_grpo.editor.geometry import editing_size, resize_image
from rc_grpo.editor.loading import load_architecture, load_pipeline
from rc_grpo.editor.registry import find
from rc_grpo.images import decode_rgb


def write_edit(
    config: EditorConfig,
    image: Path,
    instruction: str,
    lora: Path | None,
    out: Path,
    *,
    steps: int,
    seed: int,
    references: Sequence[Path] = (),
) -> str:
    """Write what `edit_image` makes: the sheet to ``out``, the edit beside it; return in words where they are.

    Raises:
        ValueError: nothing can be written there, or as `edit_image`.
    """
    check_picture(out, "--out")
    alone = out.with_stem(out.stem + "-edited")
    check_picture(alone, "--out")
    check_apart(the_image=image, the_sheet=out, the_edit=alone)
    edited, sheet = edit_image(config, image, instruction, lora, steps=steps, seed=seed, references=references)
    sheet.save(out)
    edited.save(alone)
    return f"{out} (side by side), {alone} (the edit alone)"


def edit_image(
    config: EditorConfig,
    image: Path,
    instruction: str,
    lora: Path | None,
    *,
    steps: int,
    seed: int,
    references: Sequence[Path] = (),
) -> tuple[Image.Image, Image.Image]:
    """Edit an image with the plain diffusers pipeline.

    Args:
        config: the editor.
        image: file to edit.
        instruction: what to do.
        lora: folder with LoRA weights, or None for the base model alone.
        steps: of the sampler.
        seed: of the noise, the same with and without LoRA.
        references: files of further source images.

    Returns:
        The edited image, and a sheet of source, base edit and LoRA edit side by side.

    Raises:
        ValueError: an image cannot be read, there are more than the editor takes, the instruction is too long, or the
            LoRA is not there or not for this editor.
    """
    for file in (image, *references):
        if not file.is_file():
            raise ValueError(f"no image at {file}")
    told = read_text(instruction, "instruction")
    if told is None:
        raise ValueError("the instruction is empty; say what to do")
    # The stock pipeline would cut it without a word that anybody sees.
    if objection := InstructionCheck(config)(told, 1 + len(references)):
        raise ValueError(objection)
    weights = None if lora is None else check_lora(config, lora)
    family, pipeline = find(config), load_pipeline(config)
    pixels = decode_rgb(image.read_bytes())
    sizes = load_architecture(config)
    source = resize_image(pixels, *editing_size(*pixels.shape[:2], config.resolution, sizes.token * sizes.side))
    further = [decode_rgb(file.read_bytes()) for file in references]
    base = edited = family.edit(pipeline, config, source, instruction, *further, steps=steps, seed=seed)
    cells = [(source, "source"), *((shown, f"source {number}") for number, shown in enumerate(further, 2))]
    cells.append((base, "base model"))
    if lora is not None and weights is not None:
        pipeline.load_lora_weights(for_any_loader(config.lora, weights))
        edited = family.edit(pipeline, config, source, instruction, *further, steps=steps, seed=seed)
        cells.append((edited, lora.name))
    return Image.fromarray(edited), contact_sheet([Row(instruction, tuple(cells))])
