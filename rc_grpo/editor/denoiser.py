"""The FLUX.1 Kontext policy: a velocity field over packed latents with LoRA weights that can prove themselves.

The learner runs this half of an editor alone; text encoders and VAE live in `rc_grpo.editor.codec`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from diffusers import FluxKontextPipeline, FluxTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.algorithm.solver import kontext_sigmas
from rc_grpo.config import EditorConfig, LoraSettings
from rc_grpo.editor import attention, lora
from rc_grpo.editor.attention import AttentionRecorder
from rc_grpo.editor.policy import AdapterPolicy, Policy
from rc_grpo.editor.protocol import Velocity
from rc_grpo.messages import Conditions, PolicyVersion, VersionMismatchError, VersionProof
from rc_grpo.seeds import derive, normal

PolicyMaker = Callable[[FluxTransformer2DModel, LoraSettings, int], Policy]
"""From a transformer, the LoRA's settings and a seed to the policy in it."""

TOKENS_PER_SIDE_OF_CANARY = 4


class KontextDenoiser:
    """FLUX.1 Kontext's transformer with a LoRA policy.

    Args:
        transformer: the model, on its device and in its dtype, without adapters.
        config: the editor's configuration.
        token: side of a token in pixels (16 for FLUX.1).
        seed: of the LoRA's first weights.
        policy: how the model holds the LoRA: as adapters that train, or merged.
    """

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        config: EditorConfig,
        token: int,
        seed: int,
        policy: PolicyMaker = AdapterPolicy,
    ) -> None:
        self.transformer = transformer.eval()
        self.config = config
        self.token = token
        self.policy = policy(transformer, config.lora, seed)
        attention.install(transformer)
        self.forward: Callable[..., Any] = transformer
        """What `velocity` calls; the learner puts its DeepSpeed engine here."""
        self._canary_of_base: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return torch.device(self.transformer.device)

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        """Return ``(N, C)`` of the target's packed latents."""
        rows, columns = conditions.height // self.token, conditions.width // self.token
        return rows * columns, int(self.transformer.config.in_channels)

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return Kontext's schedule ``[T+1]`` float64 for this image size."""
        return kontext_sigmas(steps, self.latent_shape(conditions)[0])

    def velocity(self, conditions: Conditions) -> Velocity:
        """Bind conditions on the device and return ``v(x [B,N,C], sigma) -> [B,N,C]`` in the dtype of x (float32).

        The timestep passes through the model's dtype exactly as in diffusers' pipeline, so that a trained LoRA meets
        the inputs it was trained on.
        """
        dtype, device = self.transformer.dtype, self.device
        bound = {name: torch.tensor(array, dtype=dtype, device=device) for name, array in conditions.arrays.items()}
        rows, columns = conditions.height // self.token, conditions.width // self.token
        target_ids = FluxKontextPipeline._prepare_latent_image_ids(1, rows, columns, device, dtype)
        reference_ids = target_ids.clone()
        reference_ids[..., 0] = 1
        image_ids = torch.cat([target_ids, reference_ids])
        text_ids = torch.zeros(len(bound["prompt"]), 3, device=device, dtype=dtype)
        has_guidance = bool(self.transformer.config.guidance_embeds)

        def field(x: Tensor, sigma: float) -> Tensor:
            batch = x.shape[0]
            reference = bound["reference"].expand(batch, -1, -1)
            timestep = torch.full((batch,), sigma * 1000, dtype=torch.float32, device=device).to(dtype) / 1000
            guidance = torch.full((batch,), self.config.guidance, device=device) if has_guidance else None
            output = self.forward(
                hidden_states=torch.cat([x.to(dtype), reference], dim=1),
                timestep=timestep,
                guidance=guidance,
                pooled_projections=bound["pooled"].expand(batch, -1),
                encoder_hidden_states=bound["prompt"].expand(batch, -1, -1),
                txt_ids=text_ids,
                img_ids=image_ids,
                return_dict=False,
            )[0]
            return output[:, : x.shape[1]].to(x.dtype)  # type: ignore[no-any-return]

        return field

    def recording(
        self, layers: tuple[int, ...], token_mask: Tensor, text_counted: Tensor
    ) -> AbstractContextManager[AttentionRecorder]:
        """Record the attention concentration of every velocity call inside the context."""
        return attention.recording(self.transformer, layers, token_mask, text_counted)

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
        conditions = self._canary_conditions()
        field = self.velocity(conditions)
        x = normal(derive("canary", "x"), 1, *self.latent_shape(conditions)).to(self.device)
        # Compiled blocks would be compiled once more for the canary's shape.
        with torch.compiler.set_stance("force_eager"):
            if self._canary_of_base is None:
                with self.policy.disabled():
                    self._canary_of_base = field(x, 0.5)
            return float((field(x, 0.5) - self._canary_of_base).abs().max())

    def _canary_conditions(self) -> Conditions:
        config = self.transformer.config
        side = TOKENS_PER_SIDE_OF_CANARY
        shapes = {
            "prompt": (8, config.joint_attention_dim),
            "pooled": (config.pooled_projection_dim,),
            "reference": (side * side, config.in_channels),
        }
        return Conditions(
            height=side * self.token,
            width=side * self.token,
            arrays={name: normal(derive("canary", name), *shape).numpy() for name, shape in shapes.items()},
            text_valid=np.ones(8, dtype=np.bool_),
        )


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
