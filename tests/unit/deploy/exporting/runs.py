"""A run's folder with LoRAs in it, one of them measured, as a training leaves it; no model is loaded."""

import json
from pathlib import Path

import torch
from torch import Tensor

from deploy.configs import load_config
from deploy.records.folder import RunFolder
from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.export import write_for_diffusers
from rc_grpo.editor.loading import load_architecture
from tests.unit.deploy.report.folders import write_run

SMALL = ("editor.lora.rank=2", "editor.lora.alpha=4", "editor.lora.targets=[attn.add_q_proj]")
SETTINGS = LoraSettings(rank=2, alpha=4, targets=("attn.add_q_proj",))
UPDATES = 12


def weights(seed: int) -> dict[str, Tensor]:
    """A LoRA of `SMALL`."""
    projections = load_architecture(load_config("pocket", SMALL).editor).projections
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, (out, width) in lora.adapted(projections, SETTINGS.targets).items():
        drawn[f"{name}.lora_A.weight"] = torch.randn(2, width, generator=generator)
        drawn[f"{name}.lora_B.weight"] = torch.randn(out, 2, generator=generator) / 10
    return drawn


def write_trained_run(folder: Path) -> Path:
    """Write a run of `UPDATES` updates whose best LoRA, of update 6, was measured as it is, and whose last was not."""
    write_run(folder, updates=UPDATES, logged=0, overrides=SMALL)
    best, last = weights(1), weights(2)
    write_for_diffusers(best, SETTINGS, folder / "lora-best")
    write_for_diffusers(last, SETTINGS, folder / "lora")
    files = RunFolder(folder)
    measured = files.evaluation_file(6)
    told = json.loads(measured.read_text())
    told["version"]["digest"] = lora.digest(best)
    measured.write_text(json.dumps(told))
    kept = {"update": 6, "reward": 0.5, "version": told["version"], "exported_digest": lora.digest(best)}
    (folder / "lora-best" / "held_out.json").write_text(json.dumps(kept))
    files.keep_data({"train": {"digest": "cd" * 32, "origin": "", "tasks": {"a": "-".join(["0" * 12] * 4)}}})
    return folder
