"""Blocks of full width, few of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.gpu.families import EDITORS
from benchmarks.gpu.measuring import (
    INSTRUCTION,
    KONTEXT,
    TEXT_TOKENS,
    body_of,
    random_conditions,
    square_mask,
    stock_denoiser,
)
from rc_grpo.config import EditorConfig
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.family import Body
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.editor.weights.policy import AdapterPolicy
from rc_grpo.messages import Conditions, VersionProof
from rc_grpo.seeds import normal

CUDA = torch.device("cuda")
SIDE = 256
MASK, TEXT = square_mask(SIDE), torch.arange(TEXT_TOKENS) < INSTRUCTION
OTHERS = [
    EDITORS["klein_4b"],
    *(EDITORS[name].model_copy(update={"source_resolution": SIDE}) for name in ("qwen_image_edit", "qwen_image_21")),
]
"""Editors of the other families."""
EVERY = [KONTEXT, *OTHERS]
SHARING = OTHERS[-1]
"""The one of which a prefix can be shared."""


def few_blocks(
    policy: PolicyMaker = AdapterPolicy, dtype: torch.dtype = torch.bfloat16, editor: EditorConfig = KONTEXT
) -> Denoiser:
    """One double and two single blocks with random weights, or as many double ones where there are no others."""
    return Denoiser(_body(editor, dtype), editor, 0, policy)


def rollout_blocks_of(in_fp8: bool, editor: EditorConfig = KONTEXT) -> Denoiser:
    """The same, as a rollout worker on a GPU has them."""
    body = _body(editor, torch.bfloat16)
    body.arrange(fp8=in_fp8)
    return Denoiser(body, editor, 0, MergedPolicy)


def stock_blocks_of(editor: EditorConfig) -> Denoiser:
    """The same as diffusers runs them."""
    return stock_denoiser(editor, **_few(editor))


def _body(editor: EditorConfig, dtype: torch.dtype) -> Body:
    return body_of(editor, dtype, **_few(editor))


def _few(editor: EditorConfig) -> dict[str, int]:
    kinds = body_of(editor, device=torch.device("meta")).transformer.config
    return {"num_layers": 1, "num_single_layers": 2} if "num_single_layers" in kinds else {"num_layers": 2}


def conditions_of(denoiser: Denoiser) -> Conditions:
    """Random ones."""
    return random_conditions(denoiser.body, denoiser.config, SIDE)


def states(denoiser: Denoiser, batch: int = 2) -> Tensor:
    """Random latents on the device."""
    return normal(9, batch, *denoiser.latent_shape(conditions_of(denoiser))).to(CUDA)


def trained(denoiser: Denoiser, seed: int = 1, size: float = 0.02) -> dict[str, Tensor]:
    """LoRA weights that act."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + size * torch.randn(tensor.shape, generator=generator)
        for name, tensor in lora.copied(denoiser.policy.weights()).items()
    }


def adopt(denoiser: Denoiser, weights: Mapping[str, Tensor], number: int = 1) -> VersionProof:
    """Take weights over as a version."""
    return denoiser.adopt(*lora.pack(number, weights), worker="w")
