"""CLIP by transformers: unit features of crops and captions, for LC-I and LC-T."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from rc_grpo.editor.files import named, pinned
from rc_grpo.editor.weights.pretrained import load_model
from rc_grpo.images import Pixels
from rc_grpo.storable import first_line

COMPBENCH_CLIP = "openai/clip-vit-large-patch14"
"""The model that the benchmark's numbers are of."""


class ClipUnavailableError(ValueError):
    """A CLIP model or its processor is not to be had; who wanted it says for what, and what it is called there."""


class Clip:
    """A CLIP model and its processor.

    torchmetrics' CLIPScore is not used: with transformers from 5 on it fails, as features come back in an object.

    Args:
        model: a `transformers.CLIPModel`.
        processor: its `transformers.CLIPProcessor`.
        device: torch's name of it.
    """

    def __init__(self, model: Any, processor: Any, device: str = "cpu") -> None:
        self._model = model.to(device).eval()
        self._processor = processor
        self._device = device

    @classmethod
    def load(
        cls, name: str, device: str = "cpu", *, revision: str | None = None, processor: str | None = None
    ) -> "Clip":
        """Load a model, of safetensors alone.

        Args:
            name: folder or hub id of the model and, if no other is named, of its processor.
            device: torch's name of where to compute.
            revision: of the model on the hub.
            processor: as of `load_processor`.

        Raises:
            ClipUnavailableError: there is none, it is no CLIP model, its weights are no safetensors or not all there,
                or its processor is not there.
        """
        try:
            model = load_model(CLIPModel, name, revision=revision)
        except (OSError, ValueError) as error:
            raise ClipUnavailableError(
                f"no CLIP model {named(name, revision)!r} with safetensors ({first_line(error)}). "
                "Name a folder that holds one, or let this machine reach the hub"
            ) from error
        return cls(model, load_processor(name, revision, processor), device)

    @torch.no_grad()
    def images(self, crops: Sequence[Pixels]) -> NDArray[np.float64]:
        """Return unit features ``[crops, d]`` of RGB crops ``[h, w, 3]`` uint8, each of any size."""
        # As Pillow images: of an array, the processor guesses which axis holds the channels.
        inputs = self._processor(images=[Image.fromarray(crop) for crop in crops], return_tensors="pt")
        return _unit(self._model.get_image_features(pixel_values=inputs["pixel_values"].to(self._device)))

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> NDArray[np.float64]:
        """Return unit features ``[captions, d]``; what goes beyond the model's length is cut off."""
        length = self._model.config.text_config.max_position_embeddings
        inputs = self._processor(
            text=list(captions), return_tensors="pt", padding=True, truncation=True, max_length=length
        ).to(self._device)
        return _unit(
            self._model.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        )


def load_processor(name: str, revision: str | None = None, elsewhere: str | None = None) -> CLIPProcessor:
    """Load a CLIP model's tokenizer and image processor.

    Args:
        name: folder or hub id of the model.
        revision: of it on the hub.
        elsewhere: folder or hub id (``@REVISION`` may follow) where they lie if not with the model.

    Raises:
        ClipUnavailableError: they are not to be had.
    """
    source, of_source = pinned(elsewhere) if elsewhere else (name, revision)
    try:
        return CLIPProcessor.from_pretrained(source, revision=of_source)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ClipUnavailableError(
            f"no tokenizer and image processor of CLIP in {named(source, of_source)!r} ({first_line(error)}). "
            "Name a folder that holds them, or let this machine reach the hub"
        ) from error


def _unit(features: Any) -> NDArray[np.float64]:
    if not isinstance(features, torch.Tensor):
        features = features.pooler_output
    array = features.double().cpu().numpy()
    return np.asarray(array / np.linalg.norm(array, axis=-1, keepdims=True))
