"""One rollout: a pure function of task, seeds and policy (Eq. 8, 10-12, 16-18)."""

import hashlib
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.algorithm import sde, solver
from rc_grpo.algorithm.perturbation import candidate_noise, global_noise
from rc_grpo.algorithm.solver import Velocity
from rc_grpo.config import RolloutConfig, SdeConfig
from rc_grpo.editor.finite import require_finite
from rc_grpo.editor.geometry import binary_mask, resize_image, resize_mask, token_mask
from rc_grpo.editor.protocol import FlowEditor
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.messages import CandidateGroup, Conditions, EditTask, PolicyVersion, RolloutSeeds
from rc_grpo.seeds import normal, step_noise


@dataclass(frozen=True)
class PreparedTask:
    """What is computed once for a task and reused by all its rollouts.

    Attributes:
        conditions: the encoders' output.
        mask: ``[N]`` bool, the edit region in tokens.
        source: ``[H, W, 3]`` uint8, the source at the size it is edited at.
        outside: ``[H, W]`` float32, share of each pixel outside the mask.
    """

    conditions: Conditions
    mask: Tensor
    source: Pixels
    outside: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        arrays = [*self.conditions.arrays.values(), self.source, self.outside]
        return sum(array.nbytes for array in arrays)


def prepare(editor: FlowEditor, task: EditTask, config: RolloutConfig) -> PreparedTask:
    """Run the encoders and map the mask to tokens."""
    conditions = editor.encode(task)
    size = conditions.height, conditions.width
    inside = binary_mask(task.mask)
    return PreparedTask(
        conditions,
        mask=token_mask(inside, *size, editor.token, config.mask),
        source=resize_image(decode_rgb(task.source), *size),
        outside=1.0 - resize_mask(inside, *size),
    )


def background_drift(
    images: NDArray[np.uint8], prepared: PreparedTask, device: torch.device | None = None
) -> NDArray[np.float32]:
    """Return each image's RMS difference to the source outside the mask ``[G]``, in 0..1; 0 where all is inside."""
    source, outside = (torch.from_numpy(np.array(array)).to(device) for array in (prepared.source, prepared.outside))
    change = (torch.from_numpy(images).to(device).float() - source) / 255
    total = outside.sum().clamp(min=1e-9) * images.shape[-1]
    mean_square = (change.square() * outside[..., None]).sum(dim=(1, 2, 3)) / total
    return np.asarray(mean_square.sqrt().cpu().numpy())


def diversity(images: NDArray[np.uint8], device: torch.device | None = None) -> float:
    """Return how far candidates ``[G, H, W, 3]`` are from being one image: RMS difference to their mean, in 0..1."""
    pixels = torch.from_numpy(np.array(images)).to(device).float() / 255
    return float((pixels - pixels.mean(dim=0)).square().mean().sqrt())


def initial_noise(shape: tuple[int, int], mask: Tensor, seeds: RolloutSeeds, config: RolloutConfig) -> Tensor:
    """Return the group's noise ``[G, N, C]`` float32, drawn on the CPU so that it is the same on every device."""
    reference = normal(seeds.reference, *shape)
    if not seeds.deltas:
        return reference[None]
    deltas = torch.stack([normal(seed, *shape) for seed in seeds.deltas])
    if config.exploration == "global":
        return global_noise(reference, deltas, config.alpha_edit)
    return candidate_noise(reference, deltas, mask, config.alpha_edit, config.alpha_base)


@torch.no_grad()
def roll_out(
    editor: FlowEditor,
    task_id: str,
    prepared: PreparedTask,
    seeds: RolloutSeeds,
    policy: PolicyVersion,
    config: RolloutConfig,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    keep_states: bool = True,
    worker: str = "",
) -> CandidateGroup:
    """Roll a group out by the deterministic ODE, from noise perturbed inside the mask.

    Args:
        editor: holding the policy's weights.
        task_id: named in the group.
        prepared: the task, see `prepare`.
        seeds: of the group's noise; one without deltas gives the reference alone (evaluation).
        policy: the version in the editor, stamped on the group.
        config: exploration, solver, recording.
        steps: T, if other than the configuration's.
        guidance: if other than the editor's.
        keep_states: whether the group carries its trajectory (training) or images only (evaluation).
        worker: who rolls out, for the record.

    Returns:
        The group; states float32 as the solver left them.

    Raises:
        NonFiniteEditError: a candidate's latents, or its picture, are no numbers.
    """
    conditions, mask = prepared.conditions, prepared.mask
    started = finished(editor.device)
    noise = initial_noise(editor.latent_shape(conditions), mask, seeds, config).to(editor.device)
    sigmas = editor.sigmas(steps or config.steps, conditions)
    acd = config.acd
    record = acd.enabled and keep_states
    text = torch.from_numpy(np.array(conditions.text_valid))
    counted = text if acd.text_tokens == "valid" else torch.ones_like(text)
    layers = acd.chosen(editor.layers)
    with editor.recording(layers, mask, counted, acd.direction) if record else nullcontext() as recorder:
        velocity = editor.velocity(conditions, guidance)
        with velocity.held():
            # Evaluation is by the ODE, whatever the training.
            if config.sde is None or not seeds.deltas:
                states = solver.integrate(velocity, noise, sigmas, config.solver)
            else:
                states = _stochastic(velocity, noise, sigmas, seeds, policy, config.sde)
    require_finite(states[-1], f"the latents that {policy} makes of {task_id}")
    integrated = finished(editor.device)
    images = editor.decode(states[-1], conditions)
    decoded = finished(editor.device)
    group = CandidateGroup(
        task_id=task_id,
        seeds=seeds,
        policy=policy,
        sigmas=sigmas.numpy(),
        token_mask=mask.numpy(),
        images=images,
        background_drift=background_drift(images, prepared, editor.device),
        states=states.transpose(0, 1).contiguous().cpu().numpy() if keep_states else None,
        acd=recorder.density.cpu().numpy() if recorder is not None else None,
        worker=worker,
    )
    seconds = {"integrate": integrated - started, "decode": decoded - integrated}
    return replace(group, seconds=seconds | {"collect": finished(editor.device) - decoded})


@torch.no_grad()
def explore(
    editor: FlowEditor,
    task_id: str,
    prepared: PreparedTask,
    seeds: RolloutSeeds,
    policy: PolicyVersion,
    config: RolloutConfig,
    *,
    worker: str = "",
) -> CandidateGroup:
    """Make a pool of candidates as `roll_out` does, in few steps and of images alone, for a group to be chosen from.

    A group's number of them goes through the model at a time, so that a pool takes no more memory than a group.

    Args:
        editor, task_id, prepared, seeds, policy, config, worker: as of `roll_out`.

    Returns:
        The pool ``[M]``, without states and recordings.

    Raises:
        NonFiniteEditError: as of `roll_out`.
    """
    conditions, mask = prepared.conditions, prepared.mask
    started = finished(editor.device)
    noise = initial_noise(editor.latent_shape(conditions), mask, seeds, config)
    sigmas = editor.sigmas(config.exploring_steps, conditions)
    velocity = editor.velocity(conditions)
    ends = []
    with velocity.held():
        for part in noise.split(config.group_size):
            ends.append(solver.integrate(velocity, part.to(editor.device), sigmas, config.solver)[-1])
    require_finite(torch.cat(ends), f"the latents that {policy} makes of {task_id}")
    integrated = finished(editor.device)
    images = np.concatenate([editor.decode(end, conditions) for end in ends])
    return CandidateGroup(
        task_id=task_id,
        seeds=seeds,
        policy=policy,
        sigmas=sigmas.numpy(),
        token_mask=mask.numpy(),
        images=images,
        background_drift=background_drift(images, prepared, editor.device),
        worker=worker,
        seconds={"integrate": integrated - started, "decode": finished(editor.device) - integrated},
    )


def image_digests(images: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return the SHA-256 (hex) of each image's pixels, ``[G, H, W, 3]``."""
    return tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images)


def _stochastic(
    velocity: Velocity, noise: Tensor, sigmas: Tensor, seeds: RolloutSeeds, policy: PolicyVersion, config: SdeConfig
) -> Tensor:
    """Sample by the SDE, in the window of this policy; the noise of a step is a function of each candidate's seed."""
    steps = len(sigmas) - 1
    window = sde.window(steps, config.window, config.moved(policy.number))

    def drawn(n: int) -> Tensor:
        return step_noise((seeds.reference, *seeds.deltas), n, *noise.shape[1:]).to(noise.device)

    return sde.integrate(velocity, noise, sigmas, config.level, window, drawn)


def finished(device: torch.device) -> float:
    """Return the time in seconds at which everything asked of the device so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
