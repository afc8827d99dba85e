"""What a rank writes to go on later: LoRA, optimiser and schedule as DeepSpeed keeps them, and our own counters."""

from pathlib import Path
from typing import Any

from torch import Tensor


def save_engine(engine: Any, folder: Path, tag: str, *, updates: int, ema: dict[str, Tensor] | None) -> None:
    """Write a checkpoint ``folder/tag``; all ranks together. The frozen base model is left out."""
    engine.save_checkpoint(
        str(folder),
        tag=tag,
        client_state={"rc_grpo_updates": updates, "rc_grpo_ema": ema},
        exclude_frozen_parameters=True,
        # Which checkpoint is the latest is for whoever makes them whole to say.
        save_latest=False,
    )


def load_engine(engine: Any, folder: Path, tag: str) -> tuple[int, dict[str, Tensor] | None]:
    """Restore a checkpoint; all ranks together.

    Returns:
        The updates behind it, and the moving average, if one was kept.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    if not (folder / tag).is_dir():
        raise FileNotFoundError(f"no checkpoint {tag!r} in {folder}")
    _, client_state = engine.load_checkpoint(str(folder), tag=tag, load_module_strict=False)
    return int(client_state["rc_grpo_updates"]), client_state["rc_grpo_ema"]
