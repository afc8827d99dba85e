"""A judge whose files lack a tensor is refused: the server would score with what was in memory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rc_grpo.config import parse_judge
from reward_service import pocket_judge
from reward_service.factory import check_judge
from reward_service.folders.judge_folder import JudgeFolderError
from reward_service.folders.tensors import require_judge
from tests.unit.reward.tiny_judges import make_base

LAYER = "model.layers.1.mlp.up_proj.weight"
"""vLLM joins it to its gate, and takes both for loaded with that one."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(pocket_judge.MODEL_PATH, tmp_path / "judge"))


def change(folder: Path, how: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    held = load_file(path)
    how(held)
    save_file(held, path, {"format": "pt"})


def judge(folder: Path, **server: Any) -> Any:
    return parse_judge({"kind": "editscore", "model": str(folder), "server": server})


def test_a_whole_judge_is_taken(folder: Path) -> None:
    require_judge(folder)
    check_judge("j", judge(folder))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_whole_model_of_every_family_is_taken_in_shards_too(family: Any, tmp_path: Path) -> None:
    require_judge(make_base(tmp_path / "base", family, shard="100KB"))


def test_a_tensor_that_is_in_no_file_is_named_before_a_server_starts(folder: Path) -> None:
    change(folder, lambda held: held.pop(LAYER))
    with pytest.raises(JudgeFolderError, match=rf"lacks 1 of the tensors of a Qwen2_5_VL.*{LAYER[6:]}.*make it again"):
        check_judge("j", judge(folder))


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    change(folder, lambda held: held.update({LAYER: torch.zeros(2, 3)}))
    with pytest.raises(JudgeFolderError, match=rf"has another shape of 1 of the tensors .*{LAYER[6:]}"):
        check_judge("j", judge(folder))


def test_a_server_that_is_told_how_to_load_and_a_quantised_model_are_left_to_it(folder: Path) -> None:
    change(folder, lambda held: held.pop(LAYER))
    check_judge("j", judge(folder, arguments=["--load-format", "dummy"]))
    config = folder / "config.json"
    method = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    config.write_text(json.dumps(json.loads(config.read_text()) | method))
    require_judge(folder)
