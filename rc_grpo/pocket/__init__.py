"""The pocket edition: a small real world of edits and a small real editor, so that the whole system runs on a laptop.

The editor under `MODEL_PATH` has FLUX.1 Kontext's architecture and folder layout, so `FluxKontextPipeline` loads it,
at six million parameters. `rc_grpo.pocket.world.PocketWorld` makes the tasks; `rc_grpo.pocket.train` made the
weights.
"""

from pathlib import Path

MODEL_PATH: Path = Path(__file__).parent / "model"
"""Folder of the trained editor, in diffusers' layout."""

MAX_SEQUENCE_LENGTH = 24
"""T5 slots the editor was trained with. Padding is attended, so the number is part of the model: pass it always."""
