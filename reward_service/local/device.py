"""Where a judge without a server computes."""

import logging

import torch

from rc_grpo.config import JudgeConfig

logger = logging.getLogger(__name__)


def device_of(config: JudgeConfig) -> str:
    """Return torch's name of the device: the GPU where the judge's resources hold one, or a share of one; else the CPU.

    A machine that has none (the one that `rc-grpo check` runs on may not) computes on its CPU, and says so.
    """
    if config.resources.num_gpus == 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    logger.warning("the judge's resources hold a GPU and this machine has none: it computes on the CPU")
    return "cpu"
