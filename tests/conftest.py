"""Fixtures shared by all tests: one thread, so that numbers repeat, and a tiny random editor."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
import torch
from diffusers import FluxTransformer2DModel

from rc_grpo.config import EditorConfig, LoraSettings
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.families.flux_kontext.transformer import KontextBody
from rc_grpo.editor.weights.policy import AdapterPolicy
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal

torch.set_num_threads(1)

TINY = EditorConfig(model="tiny", dtype="float32", device="cpu", lora=LoraSettings(rank=4, alpha=8))


def tiny_denoiser(
    config: EditorConfig = TINY,
    seed: int = 0,
    policy: PolicyMaker = AdapterPolicy,
    dtype: torch.dtype = torch.float32,
) -> Denoiser:
    """A FLUX.1 Kontext of two double and two single blocks with random weights."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=12,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=True,
    )
    return Denoiser(KontextBody(transformer.to(dtype), token=16), config, seed, policy)


def tiny_conditions(height: int = 48, width: int = 64, text_tokens: int = 6) -> Conditions:
    """Random conditions that fit `tiny_denoiser`; the last two text tokens are padding."""
    tokens = (height // 16) * (width // 16)
    return Conditions(
        height=height,
        width=width,
        arrays={
            "prompt": normal(1, text_tokens, 24).numpy(),
            "pooled": normal(2, 12).numpy(),
            "reference": normal(3, tokens, 16).numpy(),
        },
        text_valid=(torch.arange(text_tokens) < text_tokens - 2).numpy(),
    )


@pytest.fixture
def denoiser() -> Denoiser:
    return tiny_denoiser()


@pytest.fixture
def conditions() -> Conditions:
    return tiny_conditions()


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later collection: a merge, for one, asks for a whole one each time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have to say of themselves: their property ``said``."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    said = [value for report in reports for key, value in getattr(report, "user_properties", ()) if key == "said"]
    for sentence in dict.fromkeys(said):
        terminalreporter.write_line(sentence)
