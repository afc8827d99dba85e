"""From safetensors to a backbone with regression heads; every tensor binds, or none is taken."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from rc_grpo.config import RewardHeadConfig
from rc_grpo.editor.files import pinned
from rc_grpo.storable import first_line
from reward_service.folders.adapter import in_current_layout
from reward_service.folders.judge_folder import JudgeFolderError, check_weights
from reward_service.judge import JudgeSetupError

_HEAD = re.compile(r"rm_head(?:s\.head_(?P<number>\d+))?\.(?:(?P<layer>\d+)\.)?(?P<part>weight|bias)")
"""EditReward's names: ``rm_head.weight`` of one layer, ``rm_head.0.weight`` of more, ``rm_heads.head_1.0.weight``."""

BACKBONES = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}
"""By the ``model_type`` of their config.json."""

_EMBEDDING = "model.language_model.embed_tokens.weight"
_NAMED = 3


@dataclass(frozen=True)
class RewardModel:
    """A loaded model.

    Attributes:
        backbone: gives hidden states ``[B, L, D]``; no language head.
        heads: each maps ``[B, D]`` float32 to ``[B, K]``, whose first number is the score.
        processor: of the backbone, with the reward token.
        reward_token_id: where the heads read.
    """

    backbone: nn.Module
    heads: tuple[nn.Module, ...]
    processor: Any
    reward_token_id: int


def found(config: RewardHeadConfig) -> Path:
    """Return the folder with the weights, fetched from the hub if it is none here, whole as far as its headers tell.

    Raises:
        JudgeSetupError: it is not to be had, or not whole.
    """
    folder = Path(config.model)
    if not folder.is_dir():
        try:
            patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
            folder = Path(snapshot_download(config.model, revision=config.revision, allow_patterns=patterns))
        except (OSError, ValueError) as error:
            raise JudgeSetupError(
                f"judge {config.model!r} is neither a folder here nor a model that the hub gives ({first_line(error)})"
            ) from error
    try:
        check_weights(folder)
    except JudgeFolderError as error:
        raise JudgeSetupError(str(error)) from error
    return folder


def load(config: RewardHeadConfig, device: str) -> RewardModel:
    """Load backbone and heads.

    Raises:
        JudgeSetupError: files are missing or cut off, tensors have no place, places have no tensor, or the tokenizer
            takes the reward token for several.
    """
    folder = found(config)
    state = {name: tensor for file in check_weights(folder) for name, tensor in load_file(folder / file).items()}
    asked = config.backbone or str(folder)
    source, revision = pinned(asked)
    try:
        settings, processor = (kind.from_pretrained(source, revision=revision) for kind in (AutoConfig, AutoProcessor))
    except (OSError, ValueError) as error:
        raise JudgeSetupError(
            f"no config.json, tokenizer and processor of a vision-language model in {asked!r} ({first_line(error)}); "
            "name the model that the judge was trained from (backbone)"
        ) from error
    heads = {name: state.pop(name) for name in list(state) if name.startswith("rm_head")}
    state = {in_current_layout(name): tensor for name, tensor in state.items()}
    made = build_heads(heads, folder)
    token = _reward_token(processor, config.reward_token, state, folder)
    backbone = _backbone(settings, state, getattr(torch, config.dtype), folder)
    width = settings.get_text_config().hidden_size
    for head in made:
        if head[0].in_features != width:
            raise JudgeSetupError(
                f"the heads in {folder} take {head[0].in_features} features, the backbone has {width}"
            )
    edge = {"shortest_edge": config.image_pixels, "longest_edge": config.image_pixels}
    processor.image_processor.size = edge
    return RewardModel(backbone.to(device).eval(), tuple(head.to(device).eval() for head in made), processor, token)


def build_heads(state: Mapping[str, Tensor], folder: Path) -> list[nn.Sequential]:
    """Return the heads whose tensors are given: linear layers with ReLU between; dropout does nothing when scoring.

    Args:
        state: tensors by EditReward's names.
        folder: where they are from, for errors.

    Raises:
        JudgeSetupError: there are none, or a name or a shape is none of theirs.
    """
    parts: dict[int, dict[int, dict[str, Tensor]]] = {}
    for name, tensor in state.items():
        if (match := _HEAD.fullmatch(name)) is None:
            raise JudgeSetupError(f"{name} in {folder} is no tensor of a regression head that is known here")
        layers = parts.setdefault(int(match["number"] or 0), {})
        layers.setdefault(int(match["layer"] or 0), {})[match["part"]] = tensor
    if not parts:
        raise JudgeSetupError(f"{folder} holds no regression head (rm_head or rm_heads): it is no reward model")
    if sorted(parts) != list(range(len(parts))):
        raise JudgeSetupError(f"{folder} holds the heads {sorted(parts)}; one of them is missing")
    return [_head(parts[number], folder) for number in sorted(parts)]


def _head(layers: Mapping[int, Mapping[str, Tensor]], folder: Path) -> nn.Sequential:
    modules: list[nn.Module] = []
    width = None
    for index in sorted(layers):
        weight, bias = layers[index].get("weight"), layers[index].get("bias")
        if weight is None or weight.ndim != 2 or width not in (None, weight.shape[1]):
            raise JudgeSetupError(f"layer {index} of a regression head in {folder} does not follow the one before it")
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        if bias is not None and bias.shape != linear.bias.shape:
            raise JudgeSetupError(f"layer {index} of a regression head in {folder} has a bias of another width")
        linear.load_state_dict({"weight": weight.float()} | ({} if bias is None else {"bias": bias.float()}))
        modules += [*([nn.ReLU()] if modules else []), linear]
        width = weight.shape[0]
    return nn.Sequential(*modules)


def _backbone(settings: Any, state: dict[str, Tensor], dtype: torch.dtype, folder: Path) -> nn.Module:
    if (kind := BACKBONES.get(settings.model_type)) is None:
        raise JudgeSetupError(f"the backbone is a {settings.model_type}; it must be one of {', '.join(BACKBONES)}")
    settings.get_text_config().vocab_size = state[_EMBEDDING].shape[0]
    try:
        model, info = kind.from_pretrained(
            None,
            config=settings,
            state_dict=state,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (RuntimeError, ValueError, KeyError) as error:
        raise JudgeSetupError(f"the weights in {folder} do not fit their backbone ({first_line(error)})") from error
    if names := {str(entry[0]) for entry in info["mismatched_keys"]}:
        raise JudgeSetupError(f"the weights in {folder} do not fit their backbone: {_some(names)} of another shape")
    # The heads take the place of the language head, which a checkpoint may leave out.
    missing = {name for name in info["missing_keys"] if not name.startswith("lm_head.")}
    for what, names in (("lack", missing), ("hold more than it:", set(info["unexpected_keys"]))):
        if names:
            raise JudgeSetupError(f"the weights in {folder} do not fit their backbone: they {what} {_some(names)}")
    backbone: nn.Module = model.model
    return backbone


def _reward_token(processor: Any, token: str, state: Mapping[str, Tensor], folder: Path) -> int:
    if _EMBEDDING not in state:
        raise JudgeSetupError(
            f"the weights in {folder} hold no {_EMBEDDING}: their backbone is none that is known here"
        )
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [token]}, replace_extra_special_tokens=False)
    ids = processor.tokenizer(token)["input_ids"]
    if len(ids) != 1:
        raise JudgeSetupError(f"the tokenizer makes {len(ids)} tokens of the reward token {token!r}")
    if ids[0] >= (rows := state[_EMBEDDING].shape[0]):
        raise JudgeSetupError(
            f"the reward token {token!r} is number {ids[0]} of the tokenizer, and the weights in {folder} have {rows} "
            "embeddings: the judge was trained with another token (reward_token) or from another model (backbone)"
        )
    return int(ids[0])


def _some(names: Collection[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + more
