"""FLUX blocks of the real width, few of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.gpu.measuring import random_conditions, random_states, square_mask
from rc_grpo.config import EditorConfig
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.families.flux_kontext import full_size
from rc_grpo.editor.families.flux_kontext.transformer import KontextBody
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.merged import MergedPolicy
from rc_grpo.editor.policy import AdapterPolicy
from rc_grpo.messages import VersionProof

EDITOR = EditorConfig(model=FULL_SIZE, device="cuda")
CUDA = torch.device("cuda")
CONDITIONS, MASK = random_conditions(256), square_mask(256)
TEXT = torch.from_numpy(CONDITIONS.text_valid)


def few_blocks(policy: PolicyMaker = AdapterPolicy, dtype: torch.dtype = torch.bfloat16) -> Denoiser:
    """One double and two single blocks of FLUX.1 with random weights."""
    return Denoiser(_body(dtype), EDITOR, 0, policy)


def rollout_blocks_of(in_fp8: bool) -> Denoiser:
    """The same, as a rollout worker on a GPU has them."""
    body = _body(torch.bfloat16)
    body.arrange(fp8=in_fp8)
    return Denoiser(body, EDITOR, 0, MergedPolicy)


def _body(dtype: torch.dtype) -> KontextBody:
    transformer = full_size.build_transformer(CUDA, dtype, num_layers=1, num_single_layers=2)
    return KontextBody(transformer, EDITOR, full_size.TOKEN)


def states(batch: int = 2) -> Tensor:
    return random_states(256, batch)


def trained(denoiser: Denoiser, seed: int = 1, size: float = 0.02) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + size * torch.randn(tensor.shape, generator=generator)
        for name, tensor in lora.copied(denoiser.policy.weights()).items()
    }


def adopt(denoiser: Denoiser, weights: Mapping[str, Tensor], number: int = 1) -> VersionProof:
    return denoiser.adopt(*lora.pack(number, weights), worker="w")
