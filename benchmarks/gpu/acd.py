"""The attention concentration of one layer: an attention over the mask's indicator, beside the explicit matrix.

    python -m benchmarks.gpu.acd

Leaves ``benchmarks/results/gpu_acd.json``. What recording costs a whole forward pass is in `benchmarks.gpu.rollout`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.measuring import DEVICE, MIB, TEXT_TOKENS, milliseconds, peak_memory, show, square_mask
from benchmarks.results import Figure, write
from rc_grpo.algorithm.attention_density import mass_in_mask

BATCH, HEADS, WIDTH, SIDE = 4, 24, 128, 1024


def explicit(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Return what `mass_in_mask` returns, by way of the attention matrix."""
    attention = (queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5).softmax(dim=-1)
    return attention.masked_fill(~mask[:, None, None], 0.0).sum(dim=-1)


@torch.no_grad()
def main() -> None:
    """Measure and write."""
    mask = square_mask(SIDE).to(DEVICE).expand(BATCH, -1)
    tokens = TEXT_TOKENS + 2 * mask.shape[1]
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(BATCH, tokens, HEADS, WIDTH, device=DEVICE, dtype=torch.bfloat16).transpose(1, 2) for _ in range(3)
    )
    text, target = query[:, :, :TEXT_TOKENS], key[:, :, TEXT_TOKENS : TEXT_TOKENS + mask.shape[1]]
    truth = explicit(text.double(), target.double(), mask)
    ways: dict[str, Callable[[], Tensor]] = {
        "indicator-value attention": lambda: mass_in_mask(text, target, mask),
        "explicit matrix, bfloat16": lambda: explicit(text, target, mask),
        "explicit matrix, float32": lambda: explicit(text.float(), target.float(), mask),
    }
    before = torch.cuda.memory_allocated()
    detail = {
        name: {
            "ms": milliseconds(way, 20),
            "extra_mib": (peak_memory(way) - before) / MIB,
            "largest_error": float((way() - truth).abs().max()),
        }
        for name, way in ways.items()
    }
    own = milliseconds(lambda: scaled_dot_product_attention(query, key, value), 20)
    rows = [(name, *row.values()) for name, row in detail.items()]
    rows.append(("the layer's own attention", own, "", ""))
    show("one layer, batch 4, 1024x1024", ("what", "ms", "extra MiB", "largest error"), rows)
    fused = detail["indicator-value attention"]
    write(
        "gpu_acd",
        {
            "milliseconds_a_layer": Figure(fused["ms"], "ms"),
            "explicit_over_fused": Figure(detail["explicit matrix, bfloat16"]["ms"] / fused["ms"], "x"),
            "share_of_the_layers_attention": Figure(fused["ms"] / own, "fraction"),
        },
        detail | {"own_attention_ms": own},
        module="benchmarks.gpu.acd",
    )


if __name__ == "__main__":
    main()
