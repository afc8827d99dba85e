"""LoRA weights as names and bytes: their digest, their copies, what is read back and what is refused."""

import hashlib
import json
import struct
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch

from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.editor.weights.policy import AdapterPolicy
from rc_grpo.messages import VersionMismatchError
from tests.conftest import tiny_denoiser

A, B = "x.attn.to_q.lora_A.weight", "x.attn.to_q.lora_B.weight"
VALUES = torch.tensor([[0.5, -1.25, 3.0], [2.0, 0.0, -0.75]])
GOLDEN = {
    torch.float32: hashlib.sha256(
        f"{A}:(2, 3);".encode()
        + struct.pack("<6f", 0.5, -1.25, 3.0, 2.0, 0.0, -0.75)
        + f"{B}:(1,);".encode()
        + struct.pack("<f", 8.0)
    ).hexdigest(),
    # The upper halves of the same numbers.
    torch.bfloat16: hashlib.sha256(
        f"{A}:(2, 3);torch.bfloat16;".encode()
        + struct.pack("<6H", 0x3F00, 0xBFA0, 0x4040, 0x4000, 0x0000, 0xBF40)
        + f"{B}:(1,);torch.bfloat16;".encode()
        + struct.pack("<H", 0x4100)
    ).hexdigest(),
}


@pytest.mark.parametrize("dtype", list(GOLDEN))
def test_the_digest_is_over_names_shapes_and_the_bytes_that_travel_in_the_order_of_names(dtype: torch.dtype) -> None:
    last, golden = torch.tensor([8.0], dtype=dtype), GOLDEN[dtype]
    assert lora.digest({A: VALUES.to(dtype), B: last}) == golden
    assert lora.digest({B: last, A: VALUES.to(dtype)}) == golden
    assert lora.digest({A: VALUES.to(dtype).requires_grad_(), B: last}) == golden
    assert lora.digest({A: VALUES.T.contiguous().T.to(dtype), B: last}) == golden


def test_another_shape_name_or_value_is_another_digest() -> None:
    weights = {A: VALUES, B: torch.tensor([8.0])}
    others = [weights | {A: VALUES.view(3, 2)}, weights | {B: torch.tensor([8.000001])}, {A: VALUES, "y": weights[B]}]
    assert len({lora.digest(other) for other in [weights, *others]}) == 4


@pytest.mark.parametrize(
    ("b_of_x", "b_of_y", "identity"), [(0.0, 0.0, True), (0.0, 1e-30, False), (-1.0, 0.0, False), (1.0, -1.0, False)]
)
def test_weights_are_the_identity_when_every_b_is_zero_whatever_a_is(
    b_of_x: float, b_of_y: float, identity: bool
) -> None:
    weights = {
        "x.lora_A.weight": torch.ones(2, 3),
        "x.lora_B.weight": torch.tensor([[-b_of_x, b_of_x]]),
        "y.lora_A.weight": torch.zeros(2, 3),
        "y.lora_B.weight": torch.tensor([[0.0, b_of_y]]),
    }
    assert lora.is_identity(weights) is identity
    assert lora.count_modules(weights) == 2
    version, data = lora.pack(7, weights)
    assert (version.number, version.modules, version.is_identity) == (7, 2, identity)
    assert version.digest == lora.digest(weights)
    back = lora.deserialise(data)
    assert all(back[name].equal(tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_is_float32_and_keeps_its_values_while_the_original_trains(dtype: torch.dtype) -> None:
    original = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    copy = lora.copied({A: original})[A]
    with torch.no_grad():
        original.add_(1)
    assert copy.equal(torch.ones(2, 3))
    assert (copy.dtype, copy.requires_grad) == (torch.float32, False)


def test_the_state_of_a_model_is_a_copy_of_its_policys_weights_in_canonical_order(denoiser: Denoiser) -> None:
    state, weights = lora.state(denoiser.transformer), denoiser.policy.weights()
    assert list(state) == list(weights) == sorted(weights)
    assert {name.rsplit(".", 2)[1] for name in state} == {"lora_A", "lora_B"}
    assert all(state[name].equal(tensor) for name, tensor in weights.items())
    assert not {tensor.data_ptr() for tensor in state.values()} & {tensor.data_ptr() for tensor in weights.values()}


@pytest.mark.parametrize("broken", ["first", "last"])
def test_of_weights_that_do_not_fit_none_is_copied(denoiser: Denoiser, broken: str) -> None:
    before = lora.state(denoiser.transformer)
    others = {name: tensor + 1 for name, tensor in before.items()}
    name = list(before)[0 if broken == "first" else -1]
    with pytest.raises(VersionMismatchError, match=rf"{name} has shape"):
        denoiser.policy.load(others | {name: others[name][:, :1]})
    with pytest.raises(VersionMismatchError, match=r"0 of 44 missing .* 1 unknown"):
        denoiser.policy.load(others | {"z.lora_A.weight": torch.zeros(1)})
    after = denoiser.policy.weights()
    assert all(after[name].equal(tensor) for name, tensor in before.items())


def test_loading_tells_for_how_many_modules_it_was_and_the_digest_is_of_what_is_in_the_model(
    denoiser: Denoiser,
) -> None:
    others = {name: tensor + 1 for name, tensor in lora.state(denoiser.transformer).items()}
    assert denoiser.policy.load(others) == denoiser.policy.modules == 22
    assert denoiser.policy.digest() == lora.digest(others)
    with torch.no_grad():
        next(iter(denoiser.policy.weights().values())).add_(1)
    assert denoiser.policy.digest() != lora.digest(others)


@pytest.mark.parametrize("policy", [AdapterPolicy, MergedPolicy])
def test_a_version_that_travels_in_bfloat16_is_proved_by_its_bits_and_one_bit_of_it_is_not(policy: PolicyMaker) -> None:
    denoiser = tiny_denoiser(policy=policy)
    exact = {name: tensor + 0.1003 for name, tensor in lora.copied(denoiser.policy.weights()).items()}
    version, data = lora.pack(3, lora.rounded(exact, torch.bfloat16))
    assert len(data) < 0.6 * len(lora.pack(3, exact)[1])
    assert denoiser.adopt(version, data, worker="w").digest == version.digest != lora.pack(3, exact)[0].digest
    held = denoiser.policy.weights()
    assert all(held[name].float().equal(tensor.bfloat16().float()) for name, tensor in exact.items())
    changed = data.copy()
    changed[-1] ^= 1
    with pytest.raises(VersionMismatchError, match="digest"):
        denoiser.adopt(version, changed, worker="w")
    # And the next may come in float32 again.
    version, data = lora.pack(4, exact)
    assert denoiser.adopt(version, data, worker="w").digest == version.digest


def test_bytes_are_read_where_they_lie_with_shapes_and_without_warnings() -> None:
    data = safetensors.torch.save({A: VALUES, B: torch.tensor(8.0)}, metadata={"made": "by hand"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = lora.deserialise(data)
    assert read.keys() == {A, B}
    assert read[A].equal(VALUES)
    assert read[B].equal(torch.tensor(8.0))
    array = np.frombuffer(data, dtype=np.uint8)
    shared = lora.deserialise(array)[A]
    assert array.ctypes.data <= shared.data_ptr() < array.ctypes.data + len(array)


def framed(header: object, body: bytes = bytes(8)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(first: int, last: int, shape: list[int], dtype: str = "F32") -> bytes:
    return framed({A: {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(100),
        struct.pack("<Q", 2**40) + b"{",
        framed([A, B]),
        framed({A: {"dtype": "F32", "shape": [2]}}),
        framed({A: None}),
        entry(0, 8, [2], "BF16"),
        entry(0, 12, [3]),
        entry(0, 12, [2]),
        entry(-8, 8, [2]),
        entry(8, 4, [0]),
        entry(0, 8, [3]),
        entry(0, 6, [1]),
        safetensors.torch.save({A: VALUES.half()}),
        safetensors.torch.save({A: VALUES.long()}),
    ],
)
def test_whatever_is_not_whole_float32_safetensors_is_a_version_that_did_not_arrive(data: bytes) -> None:
    with pytest.raises(VersionMismatchError, match=f"{len(data)} bytes of LoRA weights cannot be read"):
        lora.deserialise(data)


def test_an_entry_may_end_where_the_bytes_end_and_be_empty() -> None:
    assert lora.deserialise(entry(4, 8, [1]))[A].tolist() == [0.0]
    assert lora.deserialise(entry(8, 8, [0]))[A].tolist() == []


def test_first_weights_are_pefts_a_uniform_within_one_over_the_root_of_its_width_and_no_b() -> None:
    first = lora.initial("x", (24, 100), 64, 3)
    assert list(first) == ["x.lora_A.weight", "x.lora_B.weight"]
    a, b = first.values()
    assert (a.shape, b.shape) == ((64, 100), (24, 64))
    assert not b.any()
    assert 0.099 < float(a.max()) <= 0.1
    assert -0.1 <= float(a.min()) < -0.099
    assert float(a.mean()) == pytest.approx(0.0, abs=0.003)
    assert float(a.std()) == pytest.approx(0.1 / 3**0.5, rel=0.03)


def test_first_weights_differ_by_projection_and_seed_and_nothing_else() -> None:
    drawn = [lora.initial(name, (24, 100), 4, seed) for name, seed in (("x", 3), ("x", 3), ("y", 3), ("x", 4))]
    first, again, elsewhere, reseeded = (next(iter(weights.values())) for weights in drawn)
    assert first.equal(again)
    assert not first.equal(elsewhere)
    assert not first.equal(reseeded)
