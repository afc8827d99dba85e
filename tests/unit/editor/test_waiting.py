"""Encoders that wait in host memory: where they are when they work, and that they come back as they were."""

import pytest
import torch
from torch import Tensor, nn

from rc_grpo.editor.stock.codec_parts import Waiting


class Shared(nn.Module):
    """Two layers that share a weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.arange(5))


def everything(encoders: list[nn.Module]) -> list[Tensor]:
    return [tensor for encoder in encoders for tensor in (*encoder.parameters(), *encoder.buffers())]


@pytest.mark.parametrize("fails", [False, True])
def test_what_waits_works_elsewhere_and_is_back_where_it_was_whatever_becomes_of_the_work(fails: bool) -> None:
    encoders = [Shared(), nn.Linear(2, 2)]
    before = {id(tensor): tensor.clone() for tensor in everything(encoders)}
    waiting = Waiting(encoders, torch.device("cpu"), offload=True)
    places = [tensor.data_ptr() for tensor in everything(encoders)]
    try:
        with waiting.at_work():
            assert all(tensor.device.type == "cpu" for tensor in everything(encoders))
            assert encoders[0].first.weight is encoders[0].second.weight  # type: ignore[union-attr]
            if fails:
                raise RuntimeError("out of memory")
    except RuntimeError:
        assert fails
    assert [tensor.data_ptr() for tensor in everything(encoders)] == places
    assert all(torch.equal(tensor, before[id(tensor)]) for tensor in everything(encoders))


def test_what_does_not_wait_is_left_alone() -> None:
    encoder = nn.Linear(2, 2)
    place = encoder.weight.data_ptr()
    with Waiting([encoder], torch.device("cpu"), offload=False).at_work():
        assert encoder.weight.data_ptr() == place
