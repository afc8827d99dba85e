"""Attention concentration density: how much of the prompt's attention lands inside the region to edit.

The attention matrix is never formed. One scaled-dot-product attention whose values are the mask's indicator returns the
attended mass itself, at a twentieth of the cost of the layer's own attention.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rc_grpo.algorithm._mask import as_boolean


def mass_in_mask(text_queries: Tensor, image_keys: Tensor, mask: Tensor) -> Tensor:
    """Return, for every head and text token, the share of its attention over the image that falls inside the mask.

    ::

        p_M(h, v) = sum over u in M of softmax_u( <q_hv, k_hu> / sqrt(D) )

    The softmax runs over the image tokens passed here and nothing else, so rows sum to 1 (Eq. 16-17). Pass the
    *target* image's keys only: in a joint sequence, text and reference tokens would take their share.

    Waits for no device: the mask's values are not read, hence not checked. `concentration` does that.

    Args:
        text_queries: ``[B, H, L, D]``, after the layer's norms and rotary embedding.
        image_keys: ``[B, H, N, D]``, same dtype and device, after the same.
        mask: token mask ``[B, N]``, boolean or 0/1; true inside the region to edit.

    Returns:
        ``[B, H, L]``, values in [0, 1], float32 (float64 for float64 inputs).

    Raises:
        ValueError: on shapes that do not fit together.
    """
    if text_queries.dim() != 4 or image_keys.dim() != 4:
        raise ValueError(
            f"text_queries has shape {list(text_queries.shape)} and image_keys {list(image_keys.shape)}, expected "
            "[B, H, L, D] and [B, H, N, D]: put heads before tokens"
        )
    batch, heads, tokens, width = image_keys.shape
    if (text_queries.shape[0], text_queries.shape[1], text_queries.shape[3]) != (batch, heads, width):
        raise ValueError(
            f"text_queries has shape {list(text_queries.shape)} and image_keys {list(image_keys.shape)}, expected "
            "the same batch, heads and head width: take both from one layer"
        )
    if mask.shape != (batch, tokens):
        raise ValueError(
            f"mask has shape {list(mask.shape)}, expected [{batch}, {tokens}] as image_keys: one entry a target token"
        )
    # Flash kernels want values as wide as the keys. Token u counts in column u modulo D: each column is rounded for
    # itself, and the rounding of a half-precision result averages out in their sum.
    columns = torch.arange(width, device=image_keys.device)
    places = torch.arange(tokens, device=image_keys.device)[:, None] % width == columns
    values = (mask.to(image_keys.device)[..., None] * places).to(image_keys.dtype)
    parts = scaled_dot_product_attention(text_queries, image_keys, values.unsqueeze(1).expand(-1, heads, -1, -1))
    return parts.to(torch.promote_types(parts.dtype, torch.float32)).sum(dim=-1)


def concentration(mass: Tensor, mask: Tensor, text_valid: Tensor | None) -> Tensor:
    """Return the attention concentration density of each image (Eq. 18).

    ::

        ACD = (N / |m|) * mean over h, v of p_M(h, v)

    1 is attention that ignores the mask, N/|m| is all of it inside; with a full mask it is 1 whatever the model
    does. That the mean runs over the prompt's real tokens and not its padding is our reading; None counts every text
    token.

    Reads the masks' values, hence waits for their device: inside a model, take `token_weights` beforehand.

    Args:
        mass: ``[B, H, L]`` of `mass_in_mask`.
        mask: token mask ``[B, N]``, boolean or 0/1, with at least one token in each row.
        text_valid: which text tokens count, ``[B, L]``, boolean or 0/1, with at least one token in each row; None for
            all.

    Returns:
        ``[B]``, dtype and device of `mass`.

    Raises:
        ValueError: on shapes that do not fit together, masks that are not binary, an empty mask, or a prompt without a
            token.
    """
    if mass.dim() != 3 or mask.dim() != 2:
        raise ValueError(
            f"mass has shape {list(mass.shape)} and mask {list(mask.shape)}, expected [B, H, L] and [B, N]: "
            "one layer of one forward pass"
        )
    batch, _, length = mass.shape
    counted = torch.ones(batch, length, dtype=torch.bool) if text_valid is None else text_valid
    inside = as_boolean(mask, (batch, mask.shape[1]))
    weights = token_weights(inside, as_boolean(counted, (batch, length), "text_valid")).to(mass)
    # Where a token does not count its mass may be anything, NaN included.
    return torch.where(weights > 0, mass.mean(dim=1) * weights, 0.0).sum(dim=1)


def concentration_on_text(mass: Tensor, mask: Tensor) -> Tensor:
    """Return how much more the region's tokens attend to the prompt than the image's do: the transpose of Eq. 18.

    ::

        ACD' = mean over u in M of a(u) / mean over all u of a(u)
        a(u) = mean over h of the share of target token u's attention, over *all* keys, that the prompt's tokens get

    1 is attention that ignores the mask, N/|m| is all of it from inside, a full mask gives 1. It is our reading, for
    models whose text never sees the image that is made, where Eq. 16's rows do not exist; `mass_in_mask` gives a(u) of
    a head with target queries, all keys, and an indicator of the prompt's tokens in the mask's place.

    Args:
        mass: a of each head ``[B, H, N]``.
        mask: token mask ``[B, N]``, boolean or 0/1, with at least one token in each row.

    Returns:
        ``[B]``, dtype and device of `mass`.
    """
    attended = mass.mean(dim=1)
    inside = mask.to(attended)
    return (attended * inside).sum(dim=1) / inside.sum(dim=1) / attended.mean(dim=1)


def token_weights(mask: Tensor, text_valid: Tensor) -> Tensor:
    """Return what each text token's head-averaged mass weighs in the concentration.

    ::

        w_v = (N / |m|) / (number of counted tokens)    at tokens that count, 0 elsewhere
        ACD = sum over v of w_v * mean over h of p_M(h, v)

    Args:
        mask: token mask ``[B, N]``, boolean or 0/1, with at least one token in each row.
        text_valid: which text tokens count, ``[B, L]``, boolean or 0/1, with at least one token in each row.

    Returns:
        ``[B, L]`` float64 on the device of `text_valid`.

    Raises:
        ValueError: on masks that are not binary, an empty mask, or a prompt without a token.
    """
    inside = as_boolean(mask, (len(mask), mask.shape[1]))
    counted = as_boolean(text_valid, (len(mask), text_valid.shape[1]), "text_valid")
    sizes, counts = inside.sum(dim=1), counted.sum(dim=1)
    if bool((sizes == 0).any()):
        empty = (sizes == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"mask is empty in rows {empty}: density in a region of no size is undefined; refuse such tasks"
        )
    if bool((counts == 0).any()):
        empty = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"text_valid counts no token in rows {empty}: pass None to count padding too")
    density = mask.shape[1] / sizes.to(counted.device, torch.float64)
    return counted.double() * (density / counts)[:, None]
