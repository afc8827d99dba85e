"""Where in the image attention to a text comes from: the recorder of `rc_grpo.editor.recording`, a number a token.

Attention concentration asks how much of it falls into a region that is known. Here the region is asked for, so a probe
leaves ``[B, N]`` where the other leaves ``[B]``, and the recorder stacks maps instead of densities. The direction is
from the image to the text, which every family has, and which tells the region better than the other: on 9 tasks of the
pocket world its masks overlap the known ones by 0.76 in the middle, those of the text's attention by 0.3.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rc_grpo.algorithm.attention_density import mass_in_mask
from rc_grpo.editor.recording import AttentionRecorder, Layout, Places, Probe, Processor, probing


@dataclass(frozen=True)
class MapToText(Probe):
    """Of each target token's attention over all keys, the share of the counted text tokens.

    Attributes:
        counted: ``[L]`` bool.
        places: of text and target.
    """

    counted: Tensor
    places: Places

    def measure(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the shares ``[B, N]`` float32, from joint queries and keys ``[B, S, H, D]``, rotated."""
        is_text = self.places.spread(self.counted.float(), key.shape[1])
        queries = self.places.of_target(query, self.counted.shape[0], queries=True).transpose(1, 2)
        mass = mass_in_mask(queries, key.transpose(1, 2), is_text.expand(len(query), -1))
        return mass.float().mean(dim=1)


@contextmanager
def mapping(
    blocks: Sequence[Any],
    processor: Processor,
    layers: tuple[int, ...],
    text_counted: Tensor,
) -> Iterator[AttentionRecorder]:
    """Record maps of layers of an editor inside the context.

    Args:
        blocks: of the editor, in the order in which layers are counted.
        processor: makes their attention processors.
        layers: joint-attention layers, one a block.
        text_counted: ``[L]`` bool over all text slots, on the editor's device.

    Raises:
        ValueError: a layer index does not exist, or no text token counts.
    """
    if not bool(text_counted.any()):
        raise ValueError("the text has no token that counts, so that its attention lies nowhere")

    def probe(layout: Layout) -> Probe:
        return MapToText(text_counted, Places.of(layout, text_counted.device))

    with probing(blocks, processor, layers, probe) as recorder:
        yield recorder


def mean_map(recorder: AttentionRecorder) -> Tensor:
    """Return the mean of a recorder's maps over layers and steps, ``[B, N]`` float32, each map with a mean of 1."""
    maps = recorder.density
    return torch.mean(maps / maps.mean(dim=2, keepdim=True), dim=(1, 3))
