"""Everything that is measured of one edit, and the settings that the numbers depend on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rc_grpo.config.base import Strict
from rc_grpo.evaluation.clip import COMPBENCH_CLIP, Clip
from rc_grpo.evaluation.compbench import corrected, official
from rc_grpo.evaluation.compbench.frames import Frames, Originals
from rc_grpo.evaluation.compbench.scores import Scores
from rc_grpo.evaluation.lpips import Lpips

_VERSION = 1
"""Of the numbers' meaning: raised with every change of a metric, so that old records are not mixed with new ones."""


class MeasureSettings(Strict):
    """Which models measure."""

    clip: str | None = COMPBENCH_CLIP
    """Folder or hub id of a CLIP model; None leaves LC-I and LC-T out."""
    lpips: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def digest(self) -> str:
        """What a record must carry to be taken for one of these settings. The device is not among them."""
        text = f"{_VERSION}|{self.clip}|{self.lpips}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Measured:
    """What was measured of one sample, both ways."""

    official: Scores
    corrected: Scores

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {"official": self.official.as_json(), "corrected": self.corrected.as_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Measured":
        """Read what `as_json` gave."""
        return cls(Scores.from_json(record["official"]), Scores.from_json(record["corrected"]))


class Meter:
    """Measures edits, holding the models that takes.

    Raises:
        ClipUnavailableError: the CLIP model that the settings name is not to be had.
        LpipsUnavailableError: the settings ask for LPIPS and this machine cannot.
    """

    def __init__(self, settings: MeasureSettings) -> None:
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._clip = None if settings.clip is None else Clip.load(settings.clip, device)
        self._lpips = Lpips.load(device) if settings.lpips else None

    def measure(self, originals: Originals, edited: bytes, caption: str | None) -> Measured:
        """Measure one edit.

        Args:
            originals: encoded source, mask and, if there is one, target.
            edited: the encoded edit, of any size.
            caption: what the region shows; several are separated by ``|``.

        Raises:
            ValueError: an image is unreadable; says which.
        """
        frames = Frames.read(originals, edited)
        return Measured(
            official.measure(frames, caption, self._clip, self._lpips),
            corrected.measure(frames, caption, self._clip, self._lpips),
        )
