"""FLUX.2 klein's transformer as a body: how a task is bound to it, its velocity, its schedule, its canary."""

from typing import Any

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux2_klein import rollout_blocks
from rc_grpo.editor.families.flux2_klein.architecture import KleinArchitecture, read
from rc_grpo.editor.families.flux2_klein.attention import FusedAttention
from rc_grpo.editor.family import Forward, Text
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import Probe
from rc_grpo.editor.stock.attention import JointAttention
from rc_grpo.editor.stock.body import StockBody, StockBound, timestep
from rc_grpo.editor.stock.schedule import levels
from rc_grpo.messages import Conditions


class KleinBody(StockBody):
    """The transformer of a klein model; see `rc_grpo.editor.family.Body`.

    Args:
        transformer: on its device and in its dtype.
        architecture: its sizes.
    """

    def __init__(self, transformer: Flux2Transformer2DModel, architecture: KleinArchitecture) -> None:
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        super().__init__(transformer, blocks, architecture, architecture.guidance)
        self._scheduler = architecture.scheduler

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the stock scheduler's levels ``[T+1]``, whose shift depends on the image's size and on T."""
        return levels(self._scheduler, steps, compute_empirical_mu(self.latent_shape(conditions)[0], steps))

    def bind(self, conditions: Conditions, text: Text, guidance: float) -> "KleinBound":
        """Put a task on the device with one of its texts."""
        return KleinBound(self, conditions, text)

    def processor(self, block: Any, probe: Probe | None) -> JointAttention | FusedAttention:
        """Return an attention processor for a double- or a single-stream block."""
        kind = FusedAttention if hasattr(block.attn, "to_qkv_mlp_proj") else JointAttention
        return kind(probe, fused=self.fused)

    def arrange_blocks(self, *, in_fp8: bool) -> None:
        """Rearrange the blocks for rollouts; see `rollout_blocks`.

        Raises:
            ValueError: float8 is asked for where there is none.
        """
        rollout_blocks.arrange(self.transformer, in_fp8=in_fp8)


def body(transformer: Flux2Transformer2DModel, editor: EditorConfig) -> KleinBody:
    """Wrap a transformer."""
    return KleinBody(transformer, read(editor))


class KleinBound(StockBound):
    """One text of one task on the device: joint order ``[text | target | source]``."""

    def __init__(self, body: KleinBody, conditions: Conditions, text: Text) -> None:
        super().__init__(body, conditions, text)
        target = body.grid(conditions.height, conditions.width)
        sources = [body.grid(*size) for size in conditions.sources] or [target]
        device = body.transformer.device
        self._ids = position_ids(target, *sources).to(device)
        self._text_ids = Flux2KleinPipeline._prepare_text_ids(self.text[None])[0].to(device)

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        """Return the velocity at states ``[B, N, C]``."""
        batch = len(x)
        output = predict(
            forward,
            self.states(x),
            timestep(sigma, batch, self.text),
            self.text.expand(batch, -1, -1),
            self._text_ids,
            self._ids,
        )
        return output[:, : x.shape[1]].to(x.dtype)


def predict(
    forward: Forward, states: Tensor, sigma: Tensor, prompt: Tensor, text_ids: Tensor, image_ids: Tensor
) -> Tensor:
    """Call the transformer and return the velocity of target and source ``[B, N + M, C]``, all in the model's dtype.

    Args:
        forward: the transformer, or the engine around it.
        states: packed latents of the target and the source behind it ``[B, N + M, C]``.
        sigma: noise levels ``[B]``.
        prompt: the text encoder's states ``[B, L, D]``.
        text_ids: ``[L, 4]``.
        image_ids: of target and source, see `position_ids`.
    """
    output: Tensor = forward(
        hidden_states=states,
        timestep=sigma,
        guidance=None,
        encoder_hidden_states=prompt,
        txt_ids=text_ids,
        img_ids=image_ids,
        return_dict=False,
    )[0]
    return output


def position_ids(target: tuple[int, int], *sources: tuple[int, int]) -> Tensor:
    """Return the ids ``[N + M, 4]`` of a target and sources of so many rows and columns: time, row, column, place."""
    images = [torch.empty(1, 1, *grid, device="meta") for grid in (target, *sources)]
    of_target: Tensor = Flux2KleinPipeline._prepare_latent_ids(images[0])[0]
    of_sources: Tensor = Flux2KleinPipeline._prepare_image_ids(images[1:])[0]
    return torch.cat([of_target, of_sources])
