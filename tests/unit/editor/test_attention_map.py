"""Maps of attention: against a softmax by hand, and against the concentration of a region."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rc_grpo.editor.attention_map import MapToText
from rc_grpo.editor.recording import Layout, Places, Probe

TEXT, TARGET, SOURCES, HEADS, WIDTH = 5, 6, 4, 3, 8
KEYS = TEXT + TARGET + SOURCES


def attention(query: Tensor, key: Tensor) -> Tensor:
    """Scores ``[B, H, queries, keys]`` by a loop over heads."""
    return torch.stack([query[:, :, h] @ key[:, :, h].transpose(-1, -2) / WIDTH**0.5 for h in range(HEADS)], dim=1)


def joint(text_first: bool) -> tuple[Tensor, Tensor, Layout]:
    torch.manual_seed(3)
    query, key = torch.randn(2, 2, KEYS, HEADS, WIDTH)
    text = torch.arange(TEXT) if text_first else torch.arange(TEXT) + TARGET
    start = TEXT if text_first else 0
    return query, key, Layout(text, slice(start, start + TARGET))


@pytest.mark.parametrize("text_first", [True, False])
def test_to_the_text_a_token_s_share_is_what_its_counted_words_get_of_all_keys(text_first: bool) -> None:
    query, key, layout = joint(text_first)
    counted = torch.tensor([True, False, True, True, False])
    probe = MapToText(counted, Places.of(layout, torch.device("cpu")))
    with torch.no_grad():
        found = probe(query, key)
    scores = attention(query[:, layout.target], key).softmax(-1)
    wanted = scores[..., layout.text[counted]].sum(dim=-1).mean(dim=1)
    torch.testing.assert_close(found, wanted)


def test_the_concentration_of_a_region_is_its_part_of_the_map() -> None:
    query, key, layout = joint(True)
    mask = torch.tensor([[True, False, True, False, False, True]])
    weights = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0])
    with torch.no_grad():
        found = MapToText(weights > 0, Places.of(layout, mask.device))(query, key)
        concentration = Probe.of(mask, weights, layout, "to_text")(query, key)
    torch.testing.assert_close(found[:, mask[0]].mean(dim=-1) / found.mean(dim=-1), concentration)


def test_maps_are_of_no_training() -> None:
    query, key, layout = joint(True)
    probe: Any = MapToText(torch.ones(TEXT, dtype=torch.bool), Places.of(layout, torch.device("cpu")))
    with pytest.raises(RuntimeError, match="without gradients only"):
        probe(query, key)
