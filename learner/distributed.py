"""torch.distributed and DeepSpeed under Ray: addresses from Ray, a backend that fits, no surprise compilation."""

import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import ray
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from learner.schedule import learning_rate_factor
from rc_grpo.config import LearnerConfig


def rendezvous() -> tuple[str, int]:
    """Return an address of this node that other nodes reach, and a free port on it, for rank 0 to listen on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), int(probe.getsockname()[1])


def join(rank: int, world_size: int, address: tuple[str, int], device: torch.device, deadline_s: float) -> None:
    """Join the learner's process group: NCCL between GPUs, gloo between CPUs."""
    host, port = address
    os.environ.update(
        RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(world_size), MASTER_ADDR=host, MASTER_PORT=str(port)
    )
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    # DeepSpeed would otherwise spend 40 s on compiling a shared-memory transport that a LoRA's gradients do not need.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo",
        auto_mpi_discovery=False,
        timeout=timedelta(seconds=deadline_s),
        verbose=False,
    )


def gather(parameters: Sequence[nn.Parameter]) -> None:
    """Make tensors whole that ZeRO 3 has sharded; they stay so until the next step. All ranks together.

    DeepSpeed's ``GatheredParameters`` would leave shards behind of what is to stay whole.
    """
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    sharded: list[Any] = [one for one in parameters if getattr(one, "ds_status", None) == ZeroParamStatus.NOT_AVAILABLE]
    if sharded:
        sharded[0].all_gather(sharded)


def make_engine(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    parameters: list[nn.Parameter],
    config: LearnerConfig,
    updates: int,
) -> Any:
    """Wrap a model of which only ``parameters`` train in a DeepSpeed engine.

    Under ZeRO 3 each of ``blocks``, which the model consists of, is fetched whole by its own hooks while the one before
    it works.

    No precision section is given: DeepSpeed then leaves dtypes alone, which is how a float32 LoRA stays float32 over a
    bfloat16 base. The optimiser is PyTorch's, because DeepSpeed's own compile for a minute and do not all continue
    bit-equal after a restore.
    """
    import deepspeed

    if config.shards_weights:
        for block in blocks:
            deepspeed.utils.set_z3_leaf_module(block, True)
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=parameters,
        optimizer=optimiser,
        lr_scheduler=LambdaLR(optimiser, learning_rate_factor(config, updates * config.steps_per_rollout)),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            # backward() accumulates, step() reduces and updates: the number of backward passes is ours to choose.
            "managed_gradient_accumulation": False,
            "gradient_clipping": config.grad_norm,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {
                "stage": config.zero_stage,
                # Stage 3 would put a product of its own in the place of PyTorch's; it rounds otherwise than rollouts'.
                "memory_efficient_linear": False,
                # Its own bound is a fraction of a block of billions of parameters: the rest would be waited for.
                "stage3_prefetch_bucket_size": max(map(_size, blocks)),
                # What trains stays whole on every rank, where another version may take its place for a while.
                "stage3_param_persistence_threshold": max(parameter.numel() for parameter in parameters),
            },
            "steps_per_print": 10**9,
        },
    )
    if config.shards_weights:
        # DeepSpeed lets go of what persists, too, while it learns in which order modules are called.
        for parameter in parameters:
            parameter.is_external_param = True  # type: ignore[attr-defined]
        gather(parameters)
    return engine


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
