"""The real pocket editor: loading, encoding, and that diffusers makes the same image from what we export."""

import logging
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import FluxKontextPipeline
from PIL import Image

from rc_grpo.algorithm.solver import integrate
from rc_grpo.config import AcdConfig, EditorConfig, LoraSettings, load
from rc_grpo.editor import lora
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.export import check_lora, read_lora, save_lora
from rc_grpo.editor.files import ModelNotFoundError
from rc_grpo.editor.loading import check_model, load_denoiser, load_editor
from rc_grpo.images import decode_rgb
from rc_grpo.pocket import MODEL_PATH
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.seeds import normal

POCKET = load(Path("deploy/configs/pocket.yaml"))
TASK = PocketWorld("heldout", 30)[7]
STEPS = 4


@pytest.fixture(scope="module")
def editor() -> Editor:
    return load_editor(POCKET.editor, seed=0)


@pytest.fixture(scope="module")
def trained(editor: Editor) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    weights = {
        name: tensor + 0.03 * torch.randn_like(tensor) for name, tensor in lora.state(editor.transformer).items()
    }
    lora.load(editor.transformer, weights)
    return weights


def by_pipeline(noise: torch.Tensor, lora_folder: Path | None) -> np.ndarray:
    pipeline = FluxKontextPipeline.from_pretrained(MODEL_PATH, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if lora_folder is not None:
        pipeline.load_lora_weights(lora_folder)
    result = pipeline(
        image=Image.fromarray(decode_rgb(TASK.source)),
        prompt=TASK.instruction,
        height=128,
        width=128,
        guidance_scale=POCKET.editor.guidance,
        num_inference_steps=STEPS,
        max_sequence_length=POCKET.editor.text_tokens,
        latents=noise,
        _auto_resize=False,
        max_area=128 * 128,
    )
    return np.asarray(result.images[0]).astype(int)


@torch.no_grad()
def test_diffusers_makes_our_image_from_the_exported_lora(
    editor: Editor, trained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_lora(editor, trained, tmp_path)
    conditions = editor.encode(TASK)
    noise = normal(21, 1, *editor.latent_shape(conditions))
    states = integrate(editor.velocity(conditions), noise, editor.sigmas(STEPS, conditions))
    ours = editor.decode(states[-1], conditions)[0].astype(int)
    theirs, base = by_pipeline(noise, tmp_path), by_pipeline(noise, None)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - base).max() > 20


def test_an_exported_lora_reads_back_bit_for_bit_and_under_its_own_rank_only(
    editor: Editor, trained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_lora(editor, trained, tmp_path)
    assert lora.digest(read_lora(POCKET.editor.lora, tmp_path)) == lora.digest(trained)
    with pytest.raises(ValueError, match=r"set editor\.lora\.rank"):
        read_lora(LoraSettings(rank=1, alpha=POCKET.editor.lora.alpha), tmp_path)
    with pytest.raises(ValueError, match="no LoRA at"):
        read_lora(POCKET.editor.lora, tmp_path / "nowhere")


def test_a_lora_to_begin_with_is_checked_without_the_model(
    editor: Editor, trained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = save_lora(editor, trained, tmp_path)
    check_lora(POCKET.editor, tmp_path)
    fewer = POCKET.editor.lora.model_copy(update={"targets": ("attn.to_q", "attn.to_k")})
    with pytest.raises(ValueError, match=r"is for 28 modules, and pocket has 12 that editor\.lora\.targets names"):
        check_lora(POCKET.editor.model_copy(update={"lora": fewer}), tmp_path)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)
    with pytest.raises(ValueError, match="does not say its rank and alpha"):
        check_lora(POCKET.editor, tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        check_lora(POCKET.editor, tmp_path)


def test_the_packaged_editor_is_loaded_without_a_warning() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    try:
        load_editor(POCKET.editor, seed=0)
        assert not [record.getMessage() for record in records if record.levelno >= logging.WARNING]
        # What it drops is dropped for that load alone.
        FluxKontextPipeline.from_pretrained(MODEL_PATH)
        assert records
    finally:
        logging.getLogger("diffusers").removeHandler(handler)


def test_the_learners_half_has_the_same_weights_as_the_whole(editor: Editor) -> None:
    half = load_denoiser(POCKET.editor, seed=0)
    assert half.token == editor.token == 16
    conditions = editor.encode(TASK)
    x = normal(5, 1, *editor.latent_shape(conditions))
    with torch.no_grad(), lora.disabled(editor.transformer), lora.disabled(half.transformer):
        assert torch.equal(half.velocity(conditions)(x, 0.5), editor.velocity(conditions)(x, 0.5))


def test_text_that_does_not_fit_is_an_error_not_cut(editor: Editor) -> None:
    with pytest.raises(ValueError, match=r"editor\.text_tokens is 24"):
        editor.encode_image(decode_rgb(TASK.source), "Add a cat. " * 20)


def test_padding_is_told_from_the_prompts_own_tokens(editor: Editor) -> None:
    valid = editor.encode(TASK).text_valid
    assert valid.shape == (24,)
    assert 3 <= valid.sum() < 24
    assert valid[: valid.sum()].all()


@torch.no_grad()
def test_decoding_what_was_encoded_gives_the_picture_back(editor: Editor) -> None:
    conditions = editor.encode(TASK)
    image = editor.decode(torch.from_numpy(conditions.arrays["reference"])[None], conditions)[0]
    error = (image.astype(float) - decode_rgb(TASK.source)) / 255
    assert np.sqrt((error**2).mean()) < 0.12


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match="no/such-editor"):
        check_model(EditorConfig(model="no/such-editor"), AcdConfig())


def test_layers_that_the_model_lacks_are_named_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match=r"names \[28, 37\]; pocket has layers 0\.\.5"):
        check_model(POCKET.editor, AcdConfig(layers=(5, 28, 37)))
    with pytest.raises(ValueError, match="names no layer"):
        check_model(POCKET.editor, AcdConfig(layers=()))
    check_model(POCKET.editor, AcdConfig())


def test_cuda_that_is_not_there_is_an_error_with_the_way_out() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(ValueError, match="num_gpus"):
        load_editor(POCKET.editor.model_copy(update={"device": "cuda"}), seed=0)
