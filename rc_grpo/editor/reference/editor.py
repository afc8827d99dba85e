"""Another editor, run as its makers run it: a diffusers pipeline whose call is filled in by its signature."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from rc_grpo.config import EditorConfig
from rc_grpo.editor.files import dtype, resolve_device
from rc_grpo.editor.geometry import binary_mask, editing_size, resize_image, resize_mask
from rc_grpo.editor.reference.source import UNREADABLE, PipelineError, PipelineSource, not_there
from rc_grpo.editor.reference.terms import Options, Terms
from rc_grpo.editor.weights import pretrained
from rc_grpo.images import Pixels, decode_rgb, encode_png
from rc_grpo.messages import EditTask

_MULTIPLE = 16
"""Sides are multiples of it at least: an autoencoder's 8 pixels, and the 2x2 of them that a transformer takes."""

_OF_A_CALL = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a pipeline of others may raise of one task, out of memory among it."""


class EditFailedError(ValueError):
    """A pipeline gave no picture of a task."""


@dataclass(frozen=True)
class Edited:
    """An edit.

    Attributes:
        pixels: ``[H, W, 3]`` uint8, of the size that the source was shown at.
        came_as: height and width that the pipeline gave.
    """

    pixels: Pixels
    came_as: tuple[int, int]

    @property
    def resized(self) -> bool:
        """Whether the pipeline gave another size."""
        return self.came_as != self.pixels.shape[:2]


@dataclass(frozen=True)
class Reference:
    """Another editor by its files, and how it is run.

    Attributes:
        source: where it is.
        class_name: of the pipeline that it is run as: its own, or the image-to-image one beside a text-to-image one.
        options: what was asked for.
        terms: what its call takes.
    """

    source: PipelineSource
    class_name: str
    options: Options
    terms: Terms

    @classmethod
    def open(cls, name: str, options: Options) -> "Reference":
        """Look at a pipeline's index, the signature of its class and its files; nothing is loaded.

        Args:
            name: a folder, a hub id, or ``pocket``.
            options: how it is run.

        Raises:
            PipelineError: it is not there or not whole, is no editor, or does not take an option.
        """
        source = PipelineSource.find(name)
        own = _class_of(source.class_name, name)
        chosen = own if {"image", "images"} & _arguments(own.__call__) else _image_to_image(own) or own
        called = f"{name} ({chosen.__name__})"
        terms = Terms.of(called, chosen.__call__, options, _arguments(chosen.__init__))
        source.require_whole()
        return cls(source, chosen.__name__, options, terms)

    @property
    def in_words(self) -> str:
        """What it is and what it takes, in one sentence."""
        own = self.source.class_name
        turned = f" makes pictures of words alone and is run as {self.class_name} (SDEdit)"
        begin = f"{self.source.name} ({own})" + (turned if self.class_name != own else "")
        return f"{begin}{',' if self.class_name != own else ''} {self.terms.in_words}."

    def made_by(self, editor: EditorConfig, seed: int) -> dict[str, Any]:
        """Return what an edit depends on, in JSON's types.

        Args:
            editor: whose resolution and precision are used.
            seed: of the run.
        """
        return {
            "pipeline": self.source.place,
            "identity": self.source.identity,
            "class": self.class_name,
            "arguments": dict(self.terms.plain),
            "resolution": editor.resolution,
            "dtype": editor.dtype,
            "seed": seed,
        }

    def as_json(self) -> dict[str, Any]:
        """Return what it is and what it takes, for a file."""
        return {"class": self.source.class_name, "run_as": self.class_name} | self.terms.as_json()


class ReferenceEditor:
    """A loaded pipeline.

    Args:
        reference: which one.
        editor: device, precision, and the side of the square whose area a source is shown at.

    Raises:
        PipelineError: it cannot be loaded.
    """

    def __init__(self, reference: Reference, editor: EditorConfig) -> None:
        self._terms = reference.terms
        self._resolution = editor.resolution
        self._device = resolve_device(editor)
        self._pipeline = _load(reference, editor).to(self._device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._multiple = math.lcm(_MULTIPLE, _factor(self._pipeline))

    def edit(self, task: EditTask, seed: int) -> Edited:
        """Edit a task's source; the picture is a function of task and seed, on one machine.

        Raises:
            EditFailedError: the pipeline failed, gave no picture, or numbers that are none.
            ValueError: the source or the mask is unreadable.
        """
        pixels = decode_rgb(task.source)
        height, width = editing_size(pixels.shape[0], pixels.shape[1], self._resolution, self._multiple)
        shown = Image.fromarray(resize_image(pixels, height, width))
        terms = self._terms
        arguments = dict(terms.plain) | {"prompt": task.instruction, terms.image: [shown] if terms.listed else shown}
        if terms.mask is not None:
            # Any coverage counts, so that no small region vanishes.
            inside = resize_mask(binary_mask(task.mask), height, width) > 0
            arguments[terms.mask] = Image.fromarray(np.where(inside, np.uint8(255), np.uint8(0)))
        if terms.sized:
            arguments |= {"height": height, "width": width}
        sizes = {"max_area": height * width, "_auto_resize": False}
        arguments |= {name: sizes[name] for name in terms.area}
        if terms.seeded:
            arguments["generator"] = torch.Generator().manual_seed(seed)
        came = self._called(arguments, seed)
        return Edited(resize_image(came, height, width), (came.shape[0], came.shape[1]))

    def _called(self, arguments: dict[str, Any], seed: int) -> Pixels:
        devices = [self._device] if self._device.type == "cuda" else []
        # Some pipelines draw beside the generator that they are given.
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            try:
                result = self._pipeline(**arguments)
            except _OF_A_CALL as error:
                lines = str(error).strip().splitlines()
                raise EditFailedError(
                    f"the pipeline failed: {type(error).__name__}: {lines[0] if lines else 'no reason given'}"
                ) from error
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise EditFailedError(
                "the pipeline's safety checker withheld the picture; save the pipeline without it "
                "(safety_checker=None) if these sources may be edited"
            )
        images = getattr(result, "images", None)
        if images is None or not len(images):
            raise EditFailedError(f"the pipeline gave no image, but {type(result).__name__}; it edits no pictures")
        return _pixels(images[0])


def _load(reference: Reference, editor: EditorConfig) -> Any:
    import diffusers
    import transformers

    # An actor's log is no place for progress bars that redraw themselves.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    source = reference.source
    try:
        kind = getattr(diffusers, reference.class_name)
        return pretrained.load_pipeline(kind, source.place, source.revision, dtype(editor))
    except (*UNREADABLE, ValueError) as error:
        raise not_there(source.name, error) from error


def _class_of(class_name: str, name: str) -> Any:
    import diffusers

    found = getattr(diffusers, class_name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise PipelineError(
            f"the pipeline {name!r} is for {class_name}, which this diffusers ({diffusers.__version__}) does not have; "
            "make its edits with its own program, and measure them by --edits FOLDER"
        )
    return found


def _image_to_image(text_to_image: Any) -> Any:
    """Return the image-to-image class that loads what a text-to-image class does, as diffusers pairs them, or None."""
    from diffusers.pipelines import auto_pipeline

    pairs = auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING, auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
    return next((pairs[1].get(name) for name, known in pairs[0].items() if known is text_to_image), None)


def _arguments(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def _factor(pipeline: Any) -> int:
    """Return what a pipeline's own image processor makes sides a multiple of; 1 where it has none."""
    config = getattr(getattr(pipeline, "image_processor", None), "config", None)
    factor = getattr(config, "vae_scale_factor", 1)
    return factor if isinstance(factor, int) and factor > 0 else 1


def _pixels(image: Any) -> Pixels:
    """Return a pipeline's picture as ``[H, W, 3]`` uint8: of floats in 0..1 as diffusers rounds them."""
    array = np.asarray(image)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise EditFailedError(
                "the picture has values that are no numbers; try another precision (editor.dtype), as float16 weights "
                "do not bear every one"
            )
        array = (array * 255).round().clip(0, 255).astype(np.uint8)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise EditFailedError(f"the pipeline gave {array.dtype} {list(array.shape)}, which is no picture")
    return array if array.shape[2:] == (3,) else decode_rgb(encode_png(array))
