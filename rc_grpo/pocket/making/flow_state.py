"""The state of the flow's training, which sittings hand on: weights, their average, the optimiser's moments, the count.

It lies in two states of `rc_grpo.pocket.making.sitting`: ``flow`` is what the editor is; ``moments`` may be left
behind, and the optimiser's then begin anew.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rc_grpo.pocket.making.sitting import halved, has_state, load_state, save_state
from rc_grpo.pocket.making.vae import averaged

LOGGER = logging.getLogger(__name__)

_BETAS, _DECAY = (0.9, 0.98), 1e-2
_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}


class FlowState:
    """A training between its steps.

    Args:
        editor: what is trained, on its device.

    Attributes:
        editor: what is trained.
        average: its weights' moving average: the result.
        optimizer: of its weights.
        step: steps so far.
        seconds: of training so far.
        scenes: composed so far; a sitting goes on with others.
    """

    def __init__(self, editor: torch.nn.Module) -> None:
        self.editor = editor
        self.average = averaged(editor)
        self.step, self.seconds, self.scenes = 0, 0.0, 0
        fused = next(editor.parameters()).device.type == "cuda"
        self.optimizer = torch.optim.AdamW(editor.parameters(), betas=_BETAS, weight_decay=_DECAY, fused=fused)

    def save(self, folder: Path) -> None:
        """Write it: the weights in float32, the average's distance from them and the moments in bfloat16."""
        facts = {"step": str(self.step), "seconds": str(self.seconds), "scenes": str(self.scenes)}
        weights = {name: weight.detach() for name, weight in self._trained()}
        means = dict(self.average.module.named_parameters())
        distances = halved({f"average.{name}": means[name].detach() - weight for name, weight in weights.items()})
        save_state(folder, "flow", {f"weight.{name}": weight for name, weight in weights.items()} | distances, facts)
        moments = {
            f"{mine}.{name}": self.optimizer.state[weight][theirs]
            for name, weight in self._trained()
            for mine, theirs in _MOMENTS.items()
            if weight in self.optimizer.state
        }
        save_state(folder, "moments", halved(moments), facts)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take over what `save` wrote.

        Raises:
            FileNotFoundError: there is no state, or a part of it is missing.
            ValueError: parts of different savings.
        """
        tensors, facts = load_state(folder, "flow")
        means = dict(self.average.module.named_parameters())
        for name, weight in self._trained():
            weight.copy_(tensors[f"weight.{name}"])
            means[name].copy_(tensors[f"weight.{name}"] + tensors[f"average.{name}"].float())
        self.average.n_averaged.fill_(1)
        self.step, self.seconds, self.scenes = int(facts["step"]), float(facts["seconds"]), int(facts["scenes"])
        if not has_state(folder, "moments"):
            LOGGER.info("no moments in %s: the optimiser's begin anew", folder)
            return
        moments, of_moments = load_state(folder, "moments")
        if of_moments != facts:
            raise ValueError(f"{folder}/moments-* are of another step than flow-*: leave them out")
        for name, weight in self._trained():
            self.optimizer.state[weight] = self._moments(weight, moments, name)

    def result(self) -> Any:
        """Return the averaged editor."""
        return self.average.module.eval().requires_grad_(False)

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return (named for named in self.editor.named_parameters() if named[1].requires_grad)

    def _moments(self, weight: Tensor, moments: dict[str, Tensor], name: str) -> dict[str, Any]:
        found = {theirs: moments[f"{mine}.{name}"].to(weight) for mine, theirs in _MOMENTS.items()}
        return {"step": torch.tensor(float(self.step), device=weight.device), **found}
