"""Region-decoupled perturbation: the candidates of a group differ inside the mask, and hardly outside it.

A group is G deterministic rollouts from G nearby noises. Where those noises differ decides what the group can compare:
with the perturbation confined to the region to edit, the spread of the rewards is about the edit and not about the
background.
"""

import math

import torch
from torch import Tensor

from rc_grpo.algorithm._mask import as_boolean


def candidate_noise(reference: Tensor, deltas: Tensor, mask: Tensor, alpha_edit: float, alpha_base: float) -> Tensor:
    """Return the initial noises of a group, perturbed unequally inside and outside the mask (Eq. 8, 10, 11).

    ::

        alpha  = alpha_edit * M + alpha_base * (1 - M)
        eps_0  = eps*
        eps_i  = sqrt(1 - alpha^2) * eps* + alpha * delta_i    (i >= 1, elementwise)

    Region by region, every eps_i is N(0, 1) again and correlates with the reference by sqrt(1 - alpha^2), with its
    siblings by 1 - alpha^2. The amounts 0.3 and 0.01 used by default elsewhere are our reading.

    Row 0 is the reference bit for bit, and so is every token whose alpha is exactly 0, in every row.

    Args:
        reference: eps*, floating point ``[N, C]``.
        deltas: one independent N(0, 1) draw a perturbed candidate, ``[G-1, N, C]``, dtype and device of `reference`.
        mask: token mask ``[N]``, boolean or 0/1; true inside the region to edit.
        alpha_edit: perturbation inside the mask, in [0, 1].
        alpha_base: perturbation outside the mask, in [0, 1].

    Returns:
        ``[G, N, C]``, dtype and device of `reference`.

    Raises:
        ValueError: on shapes or dtypes that do not fit together, an alpha outside [0, 1], or a mask that is not binary.
    """
    if reference.dim() != 2:
        raise ValueError(f"reference has shape {list(reference.shape)}, expected [N, C]: pass one task's packed noise")
    if deltas.dim() != 3 or deltas.shape[0] < 1 or deltas.shape[1:] != reference.shape:
        raise ValueError(
            f"deltas has shape {list(deltas.shape)}, expected [G-1, {reference.shape[0]}, {reference.shape[1]}] with "
            "G >= 2: one draw of the reference's shape for each perturbed candidate"
        )
    if deltas.dtype != reference.dtype or not reference.is_floating_point():
        raise ValueError(
            f"deltas is {deltas.dtype} and reference {reference.dtype}: draw both in one floating-point dtype"
        )
    for name, alpha in (("alpha_edit", alpha_edit), ("alpha_base", alpha_base)):
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"{name} is {alpha}, expected a number in [0, 1]: it is the share of fresh noise mixed in")
    region = as_boolean(mask, reference.shape[:1]).to(reference.device).long()
    fresh = reference.new_tensor([alpha_base, alpha_edit])[region].unsqueeze(-1)
    kept = reference.new_tensor([math.sqrt(1.0 - alpha**2) for alpha in (alpha_base, alpha_edit)])[region].unsqueeze(-1)
    # Two roundings, as IEEE says, on any device: a fused multiply-add would make the noise depend on where it is mixed.
    mixed = kept * reference + fresh * deltas
    # 1 * x + 0 * d is x in value only: it turns -0.0 into 0.0, and a frozen token is promised bit for bit.
    perturbed = torch.where(fresh == 0, reference, mixed)
    return torch.cat([reference.unsqueeze(0), perturbed])


def global_noise(reference: Tensor, deltas: Tensor, alpha: float) -> Tensor:
    """Return the initial noises of a group, perturbed alike everywhere: Neighbor GRPO (Eq. 6), the paper's baseline.

    It is `candidate_noise` with one alpha for both regions, bit for bit.

    Args:
        reference: eps*, floating point ``[N, C]``.
        deltas: one independent N(0, 1) draw a perturbed candidate, ``[G-1, N, C]``, dtype and device of `reference`.
        alpha: the perturbation (Neighbor GRPO's sigma), in [0, 1].

    Returns:
        ``[G, N, C]``, dtype and device of `reference`.

    Raises:
        ValueError: as `candidate_noise` does.
    """
    everywhere = torch.ones(reference.shape[:1], dtype=torch.bool)
    return candidate_noise(reference, deltas, everywhere, alpha_edit=alpha, alpha_base=alpha)
