"""The policy: a velocity field over latents with LoRA weights that can prove themselves, of whatever family.

The learner runs this half of an editor alone; text encoders and VAE live in the family's codec.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rc_grpo.config import EditorConfig, LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.attention_map import mapping
from rc_grpo.editor.family import Body, Forward
from rc_grpo.editor.guidance import GuidedVelocity, is_two_passes
from rc_grpo.editor.prefix import require_prefix
from rc_grpo.editor.recording import AttentionRecorder, Direction, Layout, recording
from rc_grpo.editor.weights.policy import AdapterPolicy, Policy
from rc_grpo.messages import Conditions, PolicyVersion, VersionMismatchError, VersionProof
from rc_grpo.seeds import derive, normal

PolicyMaker = Callable[[nn.Module, Mapping[str, tuple[int, int]], LoraSettings, int], Policy]
"""From a transformer, the projections that get a LoRA, its settings and a seed to the policy in it."""


class Denoiser:
    """A transformer with a LoRA policy.

    Args:
        body: the model, on its device and in its dtype, without adapters.
        editor: its configuration.
        seed: of the LoRA's first weights.
        policy: how the model holds the LoRA: as adapters that train, or merged.

    Raises:
        ValueError: a target of ``editor.lora.targets`` matches none of the model's projections, or ``editor.prefix``
            shares what the model has not.
    """

    def __init__(self, body: Body, editor: EditorConfig, seed: int, policy: PolicyMaker = AdapterPolicy) -> None:
        self.body = body
        self.config = editor
        self.transformer = body.transformer.eval()
        self.device = next(body.transformer.parameters()).device
        self.token = body.architecture.token
        self.layers = body.architecture.layers
        require_prefix(editor, body.architecture.shares_prefix)
        adapted = lora.adapted(body.architecture.projections, editor.lora.targets)
        self.policy = policy(body.transformer, adapted, editor.lora, seed)
        if editor.lora.fused == "attention":
            lora.confine(self.policy.weights(), body.architecture.attention_rows)
        for block in body.blocks:
            block.attn.set_processor(body.processor(block, None))
        self._forward: Forward = body.transformer
        self._recorder: AttentionRecorder | None = None
        self._canary_of_base: Tensor | None = None

    def through(self, engine: Forward) -> None:
        """Call the model by way of a training engine from now on."""
        self._forward = engine

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        """Return ``(N, C)`` of the target's latents."""
        return self.body.latent_shape(conditions)

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the family's schedule ``[T+1]`` float64 for this image size and so many steps."""
        return self.body.sigmas(steps, conditions)

    def velocity(self, conditions: Conditions, guidance: float | None = None) -> GuidedVelocity:
        """Bind conditions on the device and return ``v(x [B,N,C], sigma) -> [B,N,C]`` in the dtype of x (float32).

        Args:
            conditions: of a task.
            guidance: if other than ``editor.guidance``.
        """
        scale = self.config.guidance if guidance is None else guidance
        guided = is_two_passes(self.body.guidance, scale)
        return GuidedVelocity(
            self.body,
            self.body.bind(conditions, "prompt", scale),
            self.body.bind(conditions, "negative", scale) if guided else None,
            scale,
            lambda: self._forward,
            self._expect,
            self._collect,
            self.policy if self.config.prefix == "shared" else None,
        )

    @contextmanager
    def recording(
        self,
        layers: tuple[int, ...],
        token_mask: Tensor,
        text_counted: Tensor,
        direction: Direction = "from_text",
    ) -> Iterator[AttentionRecorder]:
        """Record the attention concentration of every velocity call inside the context; see `recording`."""
        mask = token_mask.to(self.device)
        blocks, processor = self.body.blocks, self.body.processor
        with recording(blocks, processor, layers, mask, text_counted, direction) as self._recorder:
            try:
                yield self._recorder
            finally:
                self._recorder = None

    @contextmanager
    def mapping(self, layers: tuple[int, ...], text_counted: Tensor) -> Iterator[AttentionRecorder]:
        """Record which tokens attend to the text in every velocity call inside the context; see `attention_map`."""
        counted = text_counted.to(self.device)
        with mapping(self.body.blocks, self.body.processor, layers, counted) as self._recorder:
            try:
                yield self._recorder
            finally:
                self._recorder = None

    def adopt(self, version: PolicyVersion, weights: NDArray[np.uint8], *, worker: str) -> VersionProof:
        """Replace the LoRA weights by ``version`` and prove it: modules counted, digest retaken, canary moved.

        Args:
            version: what the weights claim to be.
            weights: their safetensors bytes.
            worker: name to report under.

        Raises:
            VersionMismatchError: the bytes, the names, the count, the digest or the canary do not fit the claim. The
                model may then hold the wrong weights and must not be used until a version was adopted.
        """
        modules = self.policy.load(lora.deserialise(weights, self.device))
        digest = self.policy.digest()
        proof = VersionProof(worker, version.number, modules, digest, self.canary_shift())
        check(version, proof, expected_modules=self.policy.modules)
        return proof

    @torch.no_grad()
    def canary_shift(self) -> float:
        """Return the largest absolute change that the LoRA makes to the velocity of a small fixed input."""
        conditions = self.body.canary()
        field = self.velocity(conditions)
        x = normal(derive("canary", "x"), 1, *self.latent_shape(conditions)).to(self.device)
        # Compiled blocks would be compiled once more for the canary's shape.
        with torch.compiler.set_stance("force_eager"):
            if self._canary_of_base is None:
                with self.policy.disabled():
                    self._canary_of_base = field(x, 0.5)
            return float((field(x, 0.5) - self._canary_of_base).abs().max())

    def _expect(self, layout: Layout | None) -> None:
        if self._recorder is not None:
            self._recorder.expect(layout)

    def _collect(self, sigma: float) -> None:
        if self._recorder is not None:
            self._recorder.collect(sigma)


def check(version: PolicyVersion, proof: VersionProof, *, expected_modules: int) -> None:
    """Compare a worker's proof with what the version claims (rule 1).

    Raises:
        VersionMismatchError: naming the worker, the version and what differs.
    """
    who = f"{proof.worker} at version {version}"
    if not proof.modules == version.modules == expected_modules:
        raise VersionMismatchError(
            f"{who}: LoRA bound {proof.modules} modules, the version is for {version.modules}, the model has "
            f"{expected_modules}"
        )
    if proof.digest != version.digest:
        raise VersionMismatchError(f"{who}: digest of the applied weights is {proof.digest[:8]}")
    moved = proof.canary_shift > 0
    if moved == version.is_identity:
        raise VersionMismatchError(
            f"{who}: the canary moved by {proof.canary_shift:g}, but the weights "
            + ("are the identity" if version.is_identity else "are not the identity")
        )
