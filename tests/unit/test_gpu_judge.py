"""The benchmark of the judge's server: its models have the size of their names, and groups go to servers in turn."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from benchmarks.gpu import judge_of_full_size
from benchmarks.gpu.judge_run import Replicas
from benchmarks.judge_throughput import fresh_groups


@pytest.mark.parametrize(
    ("model", "billions", "tokens"), [("qwen2_5_vl_7b", 8.29, 18 * 18), ("qwen3_vl_8b", 8.77, 16 * 16)]
)
def test_a_judge_without_weights_is_of_the_size_that_it_is_named_for(
    model: str, billions: float, tokens: int, tmp_path: Path
) -> None:
    judge_of_full_size.write(tmp_path, model)
    config = AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        made = AutoModelForImageTextToText.from_config(config)
    assert sum(weight.numel() for weight in made.parameters()) == pytest.approx(billions * 1e9, rel=0.01)
    processor: Any = AutoProcessor.from_pretrained(tmp_path)
    image = np.zeros((512, 512, 3), np.uint8)
    text = "<|vision_start|><|image_pad|><|vision_end|>"
    seen = processor(text=[text], images=[image], return_tensors="pt")
    assert int((seen["input_ids"] == config.image_token_id).sum()) == tokens


def test_groups_go_to_the_servers_of_a_gpu_in_turn() -> None:
    asked: list[str] = []

    class Judge:
        def __init__(self, name: str) -> None:
            self._name = name

        async def score(self, _task: Any, _images: Any) -> list[Any]:
            asked.append(self._name)
            return []

    replicas = Replicas([Judge("one"), Judge("two")])  # type: ignore[list-item]
    for group in fresh_groups(4, 1, size=1, side=32):
        asyncio.run(replicas.score(*group))  # type: ignore[arg-type]
    assert asked == ["one", "two", "one", "two"]
