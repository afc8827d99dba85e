"""The distance of a version from the base model."""

import math

import pytest
import torch

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.weights.distance import DistanceFromBase


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


def test_products_that_cancel_are_no_distance_however_their_sum_rounds(denoiser: Denoiser) -> None:
    """``B`` times ``A`` is 0 with neither of them 0; the sum of squares comes out a little above or below."""
    distance = DistanceFromBase(denoiser.policy, LoraSettings())
    first = lora.copied(denoiser.policy.weights())
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        weights = {name: torch.zeros_like(tensor) for name, tensor in first.items()}
        name = next(name for name in weights if ".lora_A." in name)
        a = torch.randn(1, weights[name].shape[1], generator=generator)
        mix = torch.randn(weights[name].shape[0], 1, generator=generator)
        b = torch.randn(weights[name.replace("_A", "_B")].shape, generator=generator)
        weights[name] = mix @ a
        weights[name.replace("_A", "_B")] = b - (b @ mix) @ mix.T / mix.square().sum()
        assert distance(weights) == pytest.approx(0.0, abs=1e-2)
