"""Qwen-Image-Edit's transformer as a body: how a task is bound to it, its velocity, its schedule, its canary."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import QwenImageTransformer2DModel
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_edit import rollout_blocks
from rc_grpo.editor.families.qwen_image_edit.architecture import QwenArchitecture, read
from rc_grpo.editor.families.qwen_image_edit.attention import QwenJointAttention
from rc_grpo.editor.family import Forward, Text
from rc_grpo.editor.guidance import classifier_free
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import Probe
from rc_grpo.editor.stock.body import StockBody, StockBound, timestep
from rc_grpo.editor.stock.schedule import levels_by_tokens
from rc_grpo.messages import Conditions


class QwenBody(StockBody):
    """The transformer of a Qwen-Image-Edit model; see `rc_grpo.editor.family.Body`.

    Args:
        transformer: on its device and in its dtype.
        architecture: its sizes.
    """

    def __init__(self, transformer: QwenImageTransformer2DModel, architecture: QwenArchitecture) -> None:
        super().__init__(transformer, list(transformer.transformer_blocks), architecture, "cfg")
        self._scheduler = architecture.scheduler

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the stock scheduler's levels ``[T+1]``, stretched so that the last before 0 is its terminal one.

        Raises:
            ValueError: a single step, which cannot be both the first level and the terminal one.
        """
        return levels_by_tokens(self._scheduler, steps, self.latent_shape(conditions)[0])

    def bind(self, conditions: Conditions, text: Text, guidance: float) -> "QwenBound":
        """Put a task on the device with one of its texts."""
        return QwenBound(self, conditions, text)

    def combine(self, positive: Tensor, negative: Tensor, scale: float) -> Tensor:
        """Combine two passes, and give every token the norm that the positive one gave it, as the stock pipeline."""
        guided = classifier_free(positive, negative, scale)
        wanted, found = (velocity.norm(dim=-1, keepdim=True) for velocity in (positive, guided))
        rescaled: Tensor = guided * (wanted / found)
        return rescaled

    def processor(self, block: Any, probe: Probe | None) -> QwenJointAttention:
        """Return an attention processor."""
        return QwenJointAttention(probe, fused=self.fused)

    def varying(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Sequence[tuple[Tensor, int]]:
        """Return the text's states and positions: it is bound at its true length."""
        if named:
            states, (_, positions) = named["encoder_hidden_states"], named["image_rotary_emb"]
        else:
            _, _, states, _, _, (_, positions), *_ = inputs
        return (states, 1), (positions, 0)

    def arrange_blocks(self, *, in_fp8: bool) -> None:
        """Rearrange the blocks for rollouts; see `rollout_blocks`.

        Raises:
            ValueError: float8 is asked for where there is none.
        """
        rollout_blocks.arrange(self.transformer, in_fp8=in_fp8)


def body(transformer: QwenImageTransformer2DModel, editor: EditorConfig) -> QwenBody:
    """Wrap a transformer."""
    return QwenBody(transformer, read(editor))


class QwenBound(StockBound):
    """One text of one task on the device, at its true length: joint order ``[text | target | source]``."""

    def __init__(self, body: QwenBody, conditions: Conditions, text: Text) -> None:
        super().__init__(body, conditions, text, text_varies=True)
        images = ((conditions.height, conditions.width), *conditions.sources)
        self._shapes = [(1, *body.grid(*size)) for size in images]

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        """Return the velocity at states ``[B, N, C]``."""
        batch = len(x)
        output: Tensor = forward(
            hidden_states=self.states(x),
            timestep=timestep(sigma, batch, self.text),
            encoder_hidden_states=self.text.expand(batch, -1, -1),
            encoder_hidden_states_mask=None,
            img_shapes=[self._shapes] * batch,
            return_dict=False,
        )[0]
        return output[:, : x.shape[1]].to(x.dtype)
