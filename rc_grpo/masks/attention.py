"""Where an editor's own attention lies while it edits: the weakest of the ways, and the one that wants nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rc_grpo.algorithm import solver
from rc_grpo.config import RunConfig
from rc_grpo.editor.attention_map import mean_map
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.files import named
from rc_grpo.editor.loading import load_editor
from rc_grpo.masks.making import Example, Made, Method, NoMaskError
from rc_grpo.masks.shaping import Shape
from rc_grpo.seeds import derive, normal

_STANDS_OUT = 1.3
"""How much more than the rest a region must be attended to, on the mean."""


@dataclass(frozen=True)
class Attention:
    """Makes a mask from an editor's attention between instruction and image, in a few steps of one rollout.

    Attributes:
        editor: the base model.
        name: of the editor, which is kept.
        layers: whose attention.
        steps: of the rollout.
        shape: how the region is tidied.
    """

    editor: Editor
    name: str
    layers: tuple[int, ...]
    steps: int = 6
    shape: Shape = field(default_factory=Shape)
    method: ClassVar[Method] = "attention"
    parallel: ClassVar[bool] = False

    @classmethod
    def load(cls, config: RunConfig, shape: Shape | None = None) -> "Attention":
        """Load a configuration's editor; layers are those of its ``rollout.acd``.

        Raises:
            rc_grpo.editor.files.ModelNotFoundError: it is not there.
        """
        editor = load_editor(config.editor, config.seed)
        layers = config.rollout.acd.chosen(editor.layers)
        name = named(config.editor.model, config.editor.revision)
        return cls(editor, name, layers, shape=shape or Shape())

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `rc_grpo.masks.making.MaskMaker`."""
        return {
            "editor": self.name,
            "layers": list(self.layers),
            "steps": self.steps,
            "resolution": self.editor.config.resolution,
            "shape": vars(self.shape),
        }

    def __call__(self, example: Example) -> Made:
        """See `rc_grpo.masks.making.MaskMaker`."""
        source = example.pixels()
        attended = self.attended(source, example.instruction, example.task_id, *example.reference_pixels())
        height, width = source.shape[:2]
        image = Image.fromarray(attended, mode="F").resize((width, height), Image.Resampling.BICUBIC)
        levels = np.asarray(image)
        # Here, as its import takes a second and other makers do without.
        from skimage.filters import threshold_otsu

        threshold = float(threshold_otsu(levels)) if np.ptp(levels) else float("inf")
        region = levels > threshold
        stands_out = float(levels[region].mean() / max(1e-9, levels[~region].mean())) if region.any() else 0.0
        if stands_out < _STANDS_OUT:
            raise NoMaskError(
                "not found", f"no region is attended to {_STANDS_OUT:g} times as much as the rest ({stands_out:.2f})"
            )
        return Made(self.shape.of(region), {"threshold": round(threshold, 4), "stands_out": round(stands_out, 3)})

    @torch.no_grad()
    def attended(
        self, source: NDArray[np.uint8], instruction: str, task_id: str, *references: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Return how much each token of the image is attended to, ``[h, w]`` float32 with a mean of 1.

        Args:
            source: RGB ``[H, W, 3]`` uint8.
            instruction: what to do.
            task_id: the rollout's noise is a function of it.
            references: further source images, RGB.

        Raises:
            NoMaskError: the editor cannot take the instruction.
        """
        try:
            conditions = self.editor.encode_image(source, instruction, *references)
        except ValueError as error:
            raise NoMaskError("unreadable", str(error)) from error
        counted = torch.from_numpy(np.array(conditions.text_valid))
        noise = normal(derive("masks-attention", task_id), 1, *self.editor.latent_shape(conditions))
        with self.editor.mapping(self.layers, counted) as recorder:
            velocity = self.editor.velocity(conditions)
            with velocity.held():
                sigmas = self.editor.sigmas(self.steps, conditions)
                solver.integrate(velocity, noise.to(self.editor.device), sigmas)
        tokens = mean_map(recorder)[0].cpu().numpy()
        return np.asarray(tokens.reshape(conditions.height // self.editor.token, -1), dtype=np.float32)
