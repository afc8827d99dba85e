"""An exported LoRA says what it was made with, and is read under that alone."""

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.export import read_lora, save_lora
from tests.conftest import TINY


@pytest.fixture
def exported(denoiser: Denoiser, tmp_path: Path) -> Path:
    weights = {name: tensor + 0.1 for name, tensor in lora.state(denoiser.transformer).items()}
    return save_lora(denoiser, weights, tmp_path / "runs" / "lora")


def metadata_of(path: Path) -> dict[str, object]:
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["lora_adapter_metadata"])  # type: ignore[no-any-return]


def rewrite(path: Path, metadata: dict[str, object], dtype: torch.dtype = torch.float32) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(metadata)})


def test_the_folder_is_made_and_the_file_is_where_diffusers_looks_with_rank_and_alpha_in_it(exported: Path) -> None:
    assert exported.is_file()
    assert (exported.parent.name, exported.name) == ("lora", "pytorch_lora_weights.safetensors")
    metadata = metadata_of(exported)
    # Alpha is in B already, for loaders that do not read this.
    assert (metadata["transformer.r"], metadata["transformer.lora_alpha"]) == (4, 4)


def test_weights_read_back_are_those_that_were_written_not_those_in_the_model(
    denoiser: Denoiser, exported: Path
) -> None:
    read, inside = read_lora(TINY.lora, exported.parent), lora.state(denoiser.transformer)
    assert read.keys() == inside.keys()
    assert all(read[name].equal(tensor + 0.1) for name, tensor in inside.items())


@pytest.mark.parametrize(("rank", "alpha"), [(5, 8), (8, 4), (2, 4)])
def test_another_rank_is_refused_by_name(exported: Path, rank: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"was made with rank 4 .*has {rank}; set editor\.lora\.rank"):
        read_lora(LoraSettings(rank=rank, alpha=alpha), exported.parent)


@pytest.mark.parametrize("alpha", [1, 7, 8, 64])
def test_under_another_alpha_the_product_stays_what_it_was(exported: Path, alpha: float) -> None:
    read, written = (read_lora(LoraSettings(rank=4, alpha=value), exported.parent) for value in (alpha, 8))
    for name, tensor in written.items():
        factor = 8 / alpha if ".lora_B." in name else 1.0
        torch.testing.assert_close(read[name], factor * tensor, rtol=1e-6, atol=0)


def test_a_later_version_replaces_the_file_and_a_folder_without_one_says_where_to_look(
    denoiser: Denoiser, exported: Path
) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in lora.state(denoiser.transformer).items()}
    assert save_lora(denoiser, zeros, exported.parent) == exported
    assert not any(tensor.any() for tensor in read_lora(TINY.lora, exported.parent).values())
    with pytest.raises(ValueError, match="no LoRA at"):
        read_lora(TINY.lora, exported.parent.parent)


@pytest.mark.parametrize("missing", ["transformer.r", "transformer.lora_alpha"])
def test_a_file_that_leaves_out_its_rank_or_its_alpha_is_refused(exported: Path, missing: str) -> None:
    metadata = metadata_of(exported)
    del metadata[missing]
    rewrite(exported, metadata)
    with pytest.raises(ValueError, match="does not say its rank and alpha"):
        read_lora(TINY.lora, exported.parent)


def test_a_file_in_half_precision_is_read_as_float32(exported: Path) -> None:
    rewrite(exported, metadata_of(exported), torch.bfloat16)
    assert {tensor.dtype for tensor in read_lora(TINY.lora, exported.parent).values()} == {torch.float32}
