"""Ours, as a rollout worker and a learner's rank run it, and stock diffusers with PEFT's adapters."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.measuring import as_peft_has_it, free, random_states, without_cache
from benchmarks.gpu.parts import Part
from benchmarks.gpu.peers.setting import INSTRUCTION, Clock, Setting, part
from benchmarks.gpu.update import chain
from learner import activations, distributed
from rc_grpo.algorithm import solver
from rc_grpo.config import LearnerConfig, RolloutConfig
from rc_grpo.config.rollout import Fp8
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.fast.frozen_fp8 import quantise_frozen
from rc_grpo.editor.loading import load_rollout_editor
from rc_grpo.editor.registry import find
from rc_grpo.images import encode_png
from rc_grpo.messages import EditTask, PolicyVersion, RolloutSeeds
from rollout_workers.rollout import prepare, roll_out

STEPS = 4
"""Laps of one step, of which the first compiles."""


def ours(setting: Setting) -> Part:
    """Measure a group's rollout in the editor's precision, and anchors through one step."""
    return _both(setting, rollout=False, learner=False)


def ours_float8(setting: Setting) -> Part:
    """Measure the same with projections in float8, in the learner the frozen ones."""
    return _both(setting, rollout=False if setting.small else "gemm", learner=True)


def _both(setting: Setting, rollout: Fp8, *, learner: bool) -> Part:
    clock = Clock(setting.device)
    _rollouts(setting, clock, rollout)
    free()
    denoiser = _denoiser(setting)
    if learner:
        # Before there is an engine, which would keep the weights that are replaced.
        quantise_frozen(denoiser.body)
    trained = [weight for weight in denoiser.policy.weights().values() if isinstance(weight, nn.Parameter)]
    distributed.join(0, 1, distributed.rendezvous(), setting.device, 600.0)
    engine = distributed.make_engine(denoiser.transformer, denoiser.body.blocks, trained, LearnerConfig(), 1)
    denoiser.through(engine)
    activations.arrange(denoiser.body, "store", compiled=setting.editor.compile)
    _steps(setting, clock, denoiser, engine.backward)
    how = "activations stored" + (f"; rollout.fp8={rollout}, learner.fp8" if learner else "")
    return part(clock, setting.group, setting.batch, _detail(setting, trained, how))


def stock(setting: Setting) -> Part:
    """Measure the same by diffusers' transformer, eager, around which PEFT has put its adapters."""
    clock = Clock(setting.device)
    denoiser = _denoiser(setting, stock=True)
    codec = find(setting.editor).codec(setting.pipeline(transformer=None), setting.editor, offload=False)
    conditions = codec.encode_image(np.asarray(setting.source()), INSTRUCTION)
    field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(setting.steps, conditions)

    @torch.no_grad()
    def roll() -> Any:
        noise = random_states(denoiser.body, conditions, setting.group)
        return codec.decode(solver.integrate(field, noise, sigmas)[-1], conditions)

    for _ in range(2):
        clock.timed("rollout", roll)()
    # As in benchmarks.gpu.update: cuDNN's attention, the faster one forward, has lost the process in a backward pass.
    pinned: AbstractContextManager[Any] = nullcontext() if setting.small else sdpa_kernel([SDPBackend.FLASH_ATTENTION])
    with pinned, as_peft_has_it(denoiser.transformer):
        _steps(setting, clock, denoiser, Tensor.backward)
    weights = list(denoiser.policy.weights().values())
    return part(clock, setting.group, setting.batch, _detail(setting, weights, "eager, flash attention"))


def _rollouts(setting: Setting, clock: Clock, fp8: Fp8) -> None:
    config = RolloutConfig(group_size=setting.group, steps=setting.steps, fp8=fp8)
    editor = load_rollout_editor(setting.editor, config, 0)
    side = setting.side
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 255
    task = EditTask("peers", "other", encode_png(np.asarray(setting.source())), INSTRUCTION, encode_png(mask))
    prepared = prepare(editor, task, config)
    seeds = RolloutSeeds.for_group(0, 0, task.task_id, setting.group)
    version = PolicyVersion(0, editor.policy.digest(), editor.policy.modules, True)
    for _ in range(setting.laps):
        clock.timed("rollout", lambda: roll_out(editor, task.task_id, prepared, seeds, version, config))()


def _steps(setting: Setting, clock: Clock, denoiser: Denoiser, backprop: Callable[[Tensor], Any]) -> None:
    step = chain(denoiser, setting.side, setting.batch, 1, backprop)
    for _ in range(STEPS):
        clock.timed("step", step)()


def _denoiser(setting: Setting, *, stock: bool = False) -> Denoiser:
    editor = setting.editor
    family = find(editor)
    dtype = torch.float32 if setting.small else torch.bfloat16
    transformer: Any = family.load_transformer(editor, setting.device, dtype)
    own = dict(transformer.attn_processors)
    denoiser = Denoiser(family.body(transformer, editor), editor, 0)
    if stock:
        transformer.set_attn_processor(own)
        denoiser.through(without_cache(transformer))
    return denoiser


def _detail(setting: Setting, weights: list[Any], how: str) -> dict[str, Any]:
    count = sum(weight.numel() for weight in weights)
    return {"setting": setting.said, "how": how, "lora": f"{count} parameters in {weights[0].dtype}"}
