"""What Flow-Factory loads by name: its own adapter over a model that we give it, and a reward that differs."""

from typing import Any

import torch
from flow_factory.models.flux.flux1_kontext import Flux1KontextAdapter
from flow_factory.rewards.abc import PointwiseRewardModel, RewardModelOutput

from benchmarks.gpu.peers.setting import Setting

SETTING = Setting(side=512)
"""Whose model; whoever runs it sets it."""


class Adapter(Flux1KontextAdapter):
    """Its adapter, which would download its model.

    Args:
        config, accelerator: as it wants them.
    """

    def __init__(self, config: Any, accelerator: Any) -> None:
        super().__init__(config, accelerator)
        # At this commit counting the images of a task of one fails before it warns.
        self._has_warned_multi_image = True

    def load_pipeline(self) -> Any:
        """Return the pipeline with random weights."""
        return SETTING.pipeline()


class Varied(PointwiseRewardModel):
    """Marks that differ: it learns nothing from a group in which all are alike."""

    def __call__(self, prompt: list[str], **_named: Any) -> RewardModelOutput:
        """Return a mark for each."""
        return RewardModelOutput(rewards=torch.rand(len(prompt)))
