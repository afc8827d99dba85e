"""Vision-language models with regression heads, of random weights, in the layouts in which EditReward is saved."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from reward_service.prompts import Family
from tests.unit.reward.tiny_judges import make_base

TOKEN = "<|Reward|>"


def make_reward_model(
    folder: Path, family: Family, heads: int = 2, *, old_names: bool = False, single: bool = False
) -> Path:
    """Write backbone and heads as one state: ``rm_heads.head_N`` of three layers each, or one ``rm_head``.

    The embeddings are cut to the tokenizer's length and one more, as EditReward's are.
    """
    base = make_base(folder / "base", family)
    state = backbone_state(base)
    torch.manual_seed(2)
    for number in range(heads):
        prefix = "rm_head." if single else f"rm_heads.head_{number}."
        state |= {prefix + name: tensor for name, tensor in a_head().state_dict().items()}
    if old_names:
        state = {_old(name): tensor for name, tensor in state.items()}
    out = folder / "judge"
    out.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, out / "model.safetensors")
    return out


def backbone_state(base: Path) -> dict[str, Tensor]:
    """Return the base's tensors by their names in the model, with a row for the reward token."""
    model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    model.resize_token_embeddings(model.get_input_embeddings().weight.shape[0] + 1, mean_resizing=False)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def a_head() -> nn.Sequential:
    """Return a head as EditReward builds it, its dropout included."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.05), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 2))


def _old(name: str) -> str:
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    return name.replace("model.language_model.", "model.")
