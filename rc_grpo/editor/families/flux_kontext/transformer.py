"""FLUX.1 Kontext's transformer as a body: how a task is bound to it, its velocity, its schedule, its canary."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from torch import Tensor

from rc_grpo.algorithm.solver import kontext_sigmas
from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux_kontext import architecture, full_size, rollout_blocks
from rc_grpo.editor.family import Forward, Guidance, Text
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import Probe
from rc_grpo.editor.stock.arrays import to_tensor
from rc_grpo.editor.stock.attention import JointAttention
from rc_grpo.editor.stock.body import TEXT_OF_CANARY, StockBody, StockBound, timestep
from rc_grpo.editor.stock.schedule import levels_by_tokens
from rc_grpo.messages import Conditions


class KontextBody(StockBody):
    """The transformer of a Kontext model; see `rc_grpo.editor.family.Body`.

    Args:
        transformer: on its device and in its dtype.
        token: side of a token in pixels (16 for FLUX.1).
        scheduler: its scheduler's configuration.
    """

    def __init__(
        self, transformer: FluxTransformer2DModel, token: int, scheduler: Mapping[str, Any] = full_size.SCHEDULER
    ) -> None:
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        guidance: Guidance = "embedded" if transformer.config.guidance_embeds else "none"
        super().__init__(transformer, blocks, architecture.of_config(transformer.config, token, scheduler), guidance)
        # The paper's editor has the levels of the paper's equation, to the last bit of float64.
        made = FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler)).config
        published = all(made[name] == value for name, value in full_size.SCHEDULER.items())
        self._scheduler = None if published else scheduler

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the schedule ``[T+1]`` float64 for this size: Kontext's own, or that of a scheduler unlike it."""
        tokens = self.latent_shape(conditions)[0]
        if self._scheduler is None:
            return kontext_sigmas(steps, tokens)
        return levels_by_tokens(self._scheduler, steps, tokens)

    def bind(self, conditions: Conditions, text: Text, guidance: float) -> "KontextBound":
        """Put a task on the device.

        Raises:
            ValueError: the negative text is asked for, and this model is not guided by one.
        """
        if text == "negative":
            raise ValueError("this model embeds its guidance: it is run once, with the prompt")
        return KontextBound(self, conditions, guidance)

    def processor(self, block: Any, probe: Probe | None) -> JointAttention:
        """Return an attention processor, the same for both kinds of blocks."""
        return JointAttention(probe, fused=self.fused)

    def canary_texts(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the canary's texts: T5's and CLIP's."""
        config = self.transformer.config
        return {"prompt": (TEXT_OF_CANARY, config.joint_attention_dim), "pooled": (config.pooled_projection_dim,)}

    def arrange_blocks(self, *, in_fp8: bool) -> None:
        """Rearrange the blocks for rollouts; see `rollout_blocks`.

        Raises:
            ValueError: float8 is asked for where there is none.
        """
        rollout_blocks.arrange(self.transformer, in_fp8=in_fp8)


def body(transformer: FluxTransformer2DModel, editor: EditorConfig) -> KontextBody:
    """Wrap a transformer."""
    sizes = architecture.read(editor)
    return KontextBody(transformer, sizes.token, sizes.scheduler)


class KontextBound(StockBound):
    """One task on the device: joint order ``[text | target | reference]``."""

    def __init__(self, body: KontextBody, conditions: Conditions, guidance: float) -> None:
        super().__init__(body, conditions, "prompt")
        dtype, device = body.transformer.dtype, body.transformer.device
        self._pooled = to_tensor(conditions.arrays["pooled"], dtype, device)
        self._ids = position_ids(*body.grid(conditions.height, conditions.width), device, dtype)
        self._guidance = guidance if body.guidance == "embedded" else None

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        """Return the velocity at states ``[B, N, C]``."""
        batch, dtype, device = len(x), self.text.dtype, self.text.device
        guidance = None if self._guidance is None else torch.full((batch,), self._guidance, device=device)
        output = predict(
            forward,
            x.to(dtype),
            self.reference.expand(batch, -1, -1),
            timestep(sigma, batch, self.text),
            self.text.expand(batch, -1, -1),
            self._pooled.expand(batch, -1),
            guidance,
            self._ids,
        )
        return output.to(x.dtype)


def predict(
    forward: Forward,
    x: Tensor,
    reference: Tensor,
    sigma: Tensor,
    prompt: Tensor,
    pooled: Tensor,
    guidance: Tensor | None,
    ids: Tensor,
) -> Tensor:
    """Call the transformer and return the target's velocity ``[B, N, C]``, all in the model's dtype.

    Args:
        forward: the transformer, or the engine around it.
        x: the target's packed latents ``[B, N, C]``.
        reference: the source's ``[B, M, C]``.
        sigma: noise levels ``[B]``.
        prompt: T5's output ``[B, L, D]``.
        pooled: CLIP's ``[B, P]``.
        guidance: ``[B]`` float32; None for a model that embeds none.
        ids: of target and reference, see `position_ids`.
    """
    output: Tensor = forward(
        hidden_states=torch.cat([x, reference], dim=1),
        timestep=sigma,
        guidance=guidance,
        pooled_projections=pooled,
        encoder_hidden_states=prompt,
        txt_ids=torch.zeros(prompt.shape[1], 3, device=ids.device, dtype=ids.dtype),
        img_ids=ids,
        return_dict=False,
    )[0]
    return output[:, : x.shape[1]]


def position_ids(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the ids ``[2N, 3]`` of a target of so many tokens and a reference of its size, whose first one is 1."""
    target: Tensor = FluxKontextPipeline._prepare_latent_image_ids(1, rows, columns, device, dtype)
    reference = target.clone()
    reference[..., 0] = 1
    return torch.cat([target, reference])
