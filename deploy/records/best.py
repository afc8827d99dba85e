"""The best of a run by its held-out reward, kept for diffusers beside the last: ``lora-best/``."""

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from learner.protocol import Learner
from rc_grpo.durable import sync, write_whole
from rc_grpo.evaluation.gains import HeldOut
from rc_grpo.kept import Form, read_json

LORA_BEST, MEASURED = "lora-best", "held_out.json"


def name_of_lora(folder: Path) -> str:
    """Return what a folder of LoRA weights is called beside others: by its run, and whether it is that one's best."""
    folder = folder.resolve()
    if folder.name == LORA_BEST:
        return f"{folder.parent.name}-best"
    return folder.parent.name if folder.name == "lora" else folder.name


class _Measured(Form):
    update: int
    reward: float


class BestLora:
    """A folder with the LoRA of the version that did best in a held-out evaluation, and with what it did there.

    A run that goes back to a checkpoint keeps it: it was measured, whatever becomes of the updates since. The version
    that acted is written, without the moving average, which nobody has measured.

    Args:
        run: folder of the run.
        judge: by whose reward it is the best; None for the task reward.
    """

    def __init__(self, run: Path, judge: str | None = None) -> None:
        self.folder = run / LORA_BEST
        self._judge = judge
        self._before = run / f".{LORA_BEST}.before"

    @property
    def measured(self) -> dict[str, Any] | None:
        """Update, version, digest and mean held-out reward of what is kept; None where nothing is."""
        if not self.folder.exists() and self._before.exists():
            self._before.rename(self.folder)  # A kill came between the two moves.
        path = self.folder / MEASURED
        return read_json(path, _Measured, f"remove {self.folder}, and the next one is kept") if path.exists() else None

    async def consider(self, update: int, heldout: HeldOut, learner: Learner) -> None:
        """Keep the version that was evaluated if it is better than all before it; the untrained one is none to keep.

        Args:
            update: made before the evaluation.
            heldout: what came of it.
            learner: which has that version now.
        """
        reward, kept = heldout.mean(self._judge), self.measured
        if heldout.version.is_identity or math.isnan(reward) or (kept is not None and reward <= kept["reward"]):
            return
        fresh = self.folder.with_name(f".{LORA_BEST}.fresh")
        for left in (fresh, self._before):
            shutil.rmtree(left, ignore_errors=True)
        digest = await learner.export(fresh, average=False)
        told = {"update": update, "reward": reward, "version": asdict(heldout.version), "exported_digest": digest}
        write_whole(fresh / MEASURED, json.dumps(told, indent=2) + "\n")
        if self.folder.exists():
            self.folder.rename(self._before)
        fresh.rename(self.folder)
        sync(self.folder.parent)
        shutil.rmtree(self._before, ignore_errors=True)
