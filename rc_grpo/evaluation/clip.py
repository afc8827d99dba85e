"""CLIP by transformers: unit features of crops and captions, for LC-I and LC-T."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from rc_grpo.images import Pixels
from rc_grpo.storable import first_line

COMPBENCH_CLIP = "openai/clip-vit-large-patch14"
"""The model that the benchmark's numbers are of."""


class ClipUnavailableError(ValueError):
    """The CLIP model is not to be had; the message says where it was looked for and what to do."""


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
    def load(cls, name: str, device: str = "cpu") -> "Clip":
        """Load a model by its folder or hub id.

        Raises:
            ClipUnavailableError: it is neither a folder with a CLIP model nor in the cache or on the hub.
        """
        try:
            model, processor = CLIPModel.from_pretrained(name), CLIPProcessor.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ClipUnavailableError(
                f"no CLIP model {name!r}, which LC-I and LC-T need ({first_line(error)}). "
                "Name a folder that holds one (--clip FOLDER), let this machine reach the hub, "
                "or leave the two out (--clip none)"
            ) from error
        return cls(model, processor, device)

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


def _unit(features: Any) -> NDArray[np.float64]:
    if not isinstance(features, torch.Tensor):
        features = features.pooler_output
    array = features.double().cpu().numpy()
    return np.asarray(array / np.linalg.norm(array, axis=-1, keepdims=True))
