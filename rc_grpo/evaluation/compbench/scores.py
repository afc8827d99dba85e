"""The five numbers of CompBench for one sample, and their form in a file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

METRICS = {"lc_i": "LC-I", "lc_t": "LC-T", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
"""Field -> the benchmark's name for it, in the order of the paper's tables."""


@dataclass(frozen=True)
class Scores:
    """What was measured of one sample. NaN is "not measured" (no target, no caption, no model for it), never a zero.

    Attributes:
        lc_i: cosine of edited and true crop, -1..1.
        lc_t: 100 x cosine of edited crop and caption, at least 0.
        psnr: of the background, dB.
        ssim: of the background, at most 1.
        lpips: of the background, 0 is identical.
    """

    lc_i: float = math.nan
    lc_t: float = math.nan
    psnr: float = math.nan
    ssim: float = math.nan
    lpips: float = math.nan

    def as_json(self) -> dict[str, float | str | None]:
        """Return plain values that strict JSON can hold: None for NaN, ``"inf"`` for infinity."""
        return {name: plain(value) for name, value in self.as_dict().items()}

    def as_dict(self) -> dict[str, float]:
        """Return the values by field."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Scores":
        """Read what `as_json` gave."""
        return cls(**{name: math.nan if values[name] is None else float(values[name]) for name in METRICS})


def plain(value: float) -> float | str | None:
    """Return a number that strict JSON can hold: None for NaN, ``"inf"`` or ``"-inf"`` for an infinity."""
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else float(value)
