"""DiffusionNFT, an arm: reinforcement on the forward process, from final latents alone (arXiv 2509.16117).

A candidate x is noised anew to ``x_s = (1 - s) x + s e``; its flow-matching target is ``v = e - x``. Around the old
velocity stand an implicitly better and an implicitly worse one, mirrored, and a candidate of optimality r pulls the
first towards it and pushes the second::

    v+ = v_old + b (v_theta - v_old)
    v- = v_old - b (v_theta - v_old)
    L  = r |v+ - v|^2 + (1 - r) |v- - v|^2

No ratio, no trajectory, any solver. With the mask, squares are weighted by region as the metric of RC-GRPO does;
without it, alike.

Left out: the old policy that follows the new one by a moving average (here it is the policy that rolled out, as for
the other arms), the adaptive weight by the data prediction's error, and the penalty towards the base model
(`objective.reference_penalty` is there for every arm).
"""

import torch
from torch import Tensor


def optimality(advantages: Tensor, clip: float) -> Tensor:
    """Map advantages to r in [0, 1]: 0 at ``-clip``, a half at 0, 1 at ``clip``; NaN stays NaN.

    Args:
        advantages: ``[G]``.
        clip: the advantage at which r is 1.
    """
    return 0.5 + 0.5 * (advantages / clip).clamp(-1.0, 1.0)


def noised(final: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the state at a sigma on the straight path from noise to candidates, and its velocity ``noise - final``.

    Args:
        final: candidates' last states ``[..., N, C]``.
        noise: N(0, 1) of that shape.
        sigma: in (0, 1].
    """
    return torch.lerp(final, noise, sigma), noise - final


def loss(velocity: Tensor, old: Tensor, target: Tensor, optimal: Tensor, strength: float, weights: Tensor) -> Tensor:
    """Return the loss of each candidate ``[...]``.

    Args:
        velocity: of the weights being trained, ``[..., N, C]``.
        old: of the weights that rolled out; a constant.
        target: of flow matching.
        optimal: r ``[...]``.
        strength: b, above 0.
        weights: of tokens and channels ``[N, C]``, summing to about 1.
    """
    step = strength * (velocity - old.detach())
    better, worse = (((old.detach() + sign * step - target).square() * weights).sum(dim=(-2, -1)) for sign in (1, -1))
    return optimal * better + (1.0 - optimal) * worse
