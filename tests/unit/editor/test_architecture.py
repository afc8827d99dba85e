"""A family's sizes, from its configuration, are those of the model that it makes."""

import pytest
import torch
from torch import nn

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.family import Tokens
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.seeds import normal
from tests.conftest import TINY, tiny_denoiser
from tests.unit.editor.test_pocket_editor import POCKET


def test_projections_are_the_linear_layers_of_the_blocks_with_their_shapes() -> None:
    body = tiny_denoiser().body
    inside = ("transformer_blocks.", "single_transformer_blocks.")
    # The LoRA's layers are around the model's own.
    layers = {
        name.removesuffix(".base_layer"): (module.out_features, module.in_features)
        for name, module in body.transformer.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside) and ".lora_" not in name
    }
    assert dict(body.architecture.projections) == layers


def test_a_lora_may_be_on_any_projection_and_is_counted_by_name() -> None:
    settings = LoraSettings(rank=4, alpha=8, targets=("ff.net.2", "proj_mlp", "attn.to_q"))
    denoiser = tiny_denoiser(TINY.model_copy(update={"lora": settings}))
    assert denoiser.policy.modules == 2 + 2 + 4
    weights = sum(weight.numel() for weight in denoiser.policy.weights().values())
    shapes = lora.adapted(denoiser.body.architecture.projections, settings.targets)
    assert weights == lora.count_parameters(shapes, settings.rank)


@torch.no_grad()
def test_a_lora_on_what_a_rollout_rearranges_acts_there_as_it_does_in_the_learner() -> None:
    rearranged = ("proj_mlp", "proj_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.2", "attn.to_q")
    config = TINY.model_copy(update={"lora": LoraSettings(rank=4, alpha=8, targets=rearranged)})
    learns, acts = tiny_denoiser(config), tiny_denoiser(config, policy=MergedPolicy)
    acts.body.arrange(fp8=False)
    conditions = acts.body.canary()
    x = normal(5, 2, *acts.latent_shape(conditions))
    untrained = acts.velocity(conditions)(x, 0.5)
    torch.testing.assert_close(untrained, learns.velocity(conditions)(x, 0.5), rtol=1e-5, atol=1e-5)
    weights = {name: weight + 0.1 for name, weight in lora.copied(learns.policy.weights()).items()}
    assert learns.policy.load(weights) == acts.policy.load(weights) == 14
    velocity = acts.velocity(conditions)(x, 0.5)
    torch.testing.assert_close(velocity, learns.velocity(conditions)(x, 0.5), rtol=1e-4, atol=1e-4)
    assert (velocity - untrained).abs().max() > 0.01


def test_the_negative_text_of_a_model_that_embeds_its_guidance_is_refused(denoiser: Denoiser) -> None:
    with pytest.raises(ValueError, match="embeds its guidance"):
        denoiser.body.bind(denoiser.body.canary(), "negative", 2.5)
    assert denoiser.body.guidance == "embedded"


def test_the_tokens_of_an_edit_are_text_target_and_a_source_of_its_size(denoiser: Denoiser) -> None:
    tokens = denoiser.body.architecture.tokens(POCKET.editor)
    assert tokens == Tokens(text=24, target=64, sources=64)
    assert tokens.total == 152


@torch.no_grad()
def test_base_weights_are_the_models_own_whatever_lora_is_on_them(denoiser: Denoiser) -> None:
    before = {name: weight.clone() for name, weight in denoiser.policy.base().items()}
    assert before.keys() == lora.adapted(denoiser.body.architecture.projections, TINY.lora.targets).keys()
    denoiser.policy.load({name: weight + 1 for name, weight in denoiser.policy.weights().items()})
    after = denoiser.policy.base()
    assert all(torch.equal(before[name], after[name]) for name in before)
