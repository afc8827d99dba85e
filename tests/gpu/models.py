"""FLUX blocks of the real width, few of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.gpu.measuring import random_conditions, random_states, square_mask
from rc_grpo.config import EditorConfig
from rc_grpo.editor import full_size, lora
from rc_grpo.editor.denoiser import KontextDenoiser, PolicyMaker
from rc_grpo.editor.policy import AdapterPolicy
from rc_grpo.messages import VersionProof

EDITOR = EditorConfig(model=full_size.NAME, device="cuda")
CUDA = torch.device("cuda")
CONDITIONS, MASK = random_conditions(256), square_mask(256)
TEXT = torch.from_numpy(CONDITIONS.text_valid)


def few_blocks(policy: PolicyMaker = AdapterPolicy, dtype: torch.dtype = torch.bfloat16) -> KontextDenoiser:
    """One double and two single blocks of FLUX.1 with random weights."""
    transformer = full_size.build_transformer(CUDA, dtype, num_layers=1, num_single_layers=2)
    return KontextDenoiser(transformer, EDITOR, full_size.TOKEN, 0, policy)


def states(batch: int = 2) -> Tensor:
    return random_states(256, batch)


def trained(denoiser: KontextDenoiser, seed: int = 1, size: float = 0.02) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + size * torch.randn(tensor.shape, generator=generator)
        for name, tensor in lora.copied(denoiser.policy.weights()).items()
    }


def adopt(denoiser: KontextDenoiser, weights: Mapping[str, Tensor], number: int = 1) -> VersionProof:
    return denoiser.adopt(*lora.pack(number, weights), worker="w")
