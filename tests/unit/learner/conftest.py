"""A policy that acts, and groups of it."""

import numpy as np
import pytest
import torch

from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import CandidateGroup, PolicyVersion, RolloutSeeds

SEEDS = RolloutSeeds(10, (11, 12, 13))


@pytest.fixture
def policy(denoiser: Denoiser) -> Denoiser:
    torch.manual_seed(2)
    weights = lora.state(denoiser.transformer)
    lora.load(
        denoiser.transformer, {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in weights.items()}
    )
    return denoiser


def group_of(states: torch.Tensor, sigmas: torch.Tensor) -> CandidateGroup:
    """Return the group of four of these states ``[T+1, 4, N, C]``, tokens 3 to 6 inside the mask."""
    mask = np.zeros(states.shape[2], dtype=bool)
    mask[3:7] = True
    return CandidateGroup(
        task_id="t",
        seeds=SEEDS,
        policy=PolicyVersion(1, "d", 22, is_identity=False),
        sigmas=sigmas.numpy(),
        token_mask=mask,
        images=np.zeros((4, 16, 16, 3), dtype=np.uint8),
        background_drift=np.zeros(4, dtype=np.float32),
        states=states.transpose(0, 1).numpy(),
    )
