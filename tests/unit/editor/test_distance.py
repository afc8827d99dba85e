"""The distance of a version from the base model."""

import math

import pytest
import torch

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.distance import DistanceFromBase


def test_the_distance_is_the_relative_norm_of_the_change_and_0_before_training(denoiser: Denoiser) -> None:
    settings = LoraSettings()
    distance = DistanceFromBase(denoiser.policy, settings)
    assert distance(denoiser.policy.weights()) == 0
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(tensor.shape, generator=generator)
        for name, tensor in lora.copied(denoiser.policy.weights()).items()
    }
    change = base = 0.0
    for name, weight in denoiser.policy.base().items():
        a, b = (weights[f"{name}.lora_{part}.weight"].double() for part in "AB")
        change += float((settings.alpha / settings.rank * b @ a).square().sum())
        base += float(weight.double().square().sum())
    assert distance(weights) == pytest.approx(math.sqrt(change / base), rel=1e-4)
