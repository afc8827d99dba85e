"""The pocket edition: a small real world of edits and small real editors, so that the whole system runs on a laptop.

The editor under `MODEL_PATH` has FLUX.1 Kontext's architecture and folder layout, so `FluxKontextPipeline` loads it,
at six million parameters; that under `KLEIN_MODEL_PATH` has FLUX.2 klein's. `rc_grpo.pocket.world.PocketWorld` makes
the tasks; `rc_grpo.pocket.train` made the weights.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

MODEL_PATH: Path = Path(__file__).parent / "model"
"""Folder of the trained editor, in diffusers' layout."""

MAX_SEQUENCE_LENGTH = 24
"""T5 slots the editor was trained with. Padding is attended, so the number is part of the model: pass it always."""

KLEIN_MODEL_PATH: Path = Path(__file__).parent / "klein_model"
"""Folder of the second editor."""

KLEIN_TEXT_SLOTS = 32
"""Slots that it was trained with, the chat template's twelve tokens among them; padding is attended here, too."""

MODEL_PATHS: Mapping[str, Path] = MappingProxyType({"pocket": MODEL_PATH, "pocket-klein": KLEIN_MODEL_PATH})
"""By what ``editor.model`` calls them."""
