from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline

from rc_grpo.pocket import MAX_SEQUENCE_LENGTH, MODEL_PATH
from rc_grpo.pocket.editors.kontext import EDITOR
from rc_grpo.pocket.evaluate import edit, scores
from rc_grpo.pocket.making.flow import shifted
from rc_grpo.pocket.tokenizers import clip_tokenizer, t5_tokenizer
from rc_grpo.pocket.world import PocketWorld, phrases

INSTRUCTIONS = list(phrases())


@pytest.fixture(scope="module")
def pipeline() -> Any:
    loaded = FluxKontextPipeline.from_pretrained(MODEL_PATH)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_model_is_small_and_whole_in_float32(pipeline: Any) -> None:
    assert sum(path.stat().st_size for path in MODEL_PATH.rglob("*") if path.is_file()) < 18 * 2**20
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        assert {parameter.dtype for parameter in getattr(pipeline, name).parameters()} == {torch.float32}


def test_every_instruction_fits_without_unknown_tokens(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer_2
    encoded = tokenizer(INSTRUCTIONS).input_ids
    assert max(map(len, encoded)) <= MAX_SEQUENCE_LENGTH
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)
    # One token a word: the editor never sees a word in pieces.
    words = [len(text.replace(".", " .").split()) for text in INSTRUCTIONS]
    assert [len(ids) - 1 for ids in encoded] == words


def test_saved_tokenizers_are_those_of_this_world(pipeline: Any) -> None:
    texts = [*INSTRUCTIONS[::50], "Add a purple dinosaur!"]
    assert pipeline.tokenizer(texts).input_ids == clip_tokenizer()(texts).input_ids
    assert pipeline.tokenizer_2(texts).input_ids == t5_tokenizer()(texts).input_ids


def test_edits_move_the_region_towards_the_target(pipeline: Any) -> None:
    report = scores(pipeline, tasks=6, seeds=1)
    assert report["all"]["relative_error"] < 0.9
    assert report["all"]["background_drift"] < 0.2


def test_the_noise_alone_decides_an_edit(pipeline: Any) -> None:
    task = PocketWorld("heldout", 1)[0]
    images = edit(pipeline, task, [0, 1], steps=2)
    again = edit(pipeline, task, [0, 1], steps=2)
    np.testing.assert_array_equal(images, again)
    assert np.abs(images[0] - images[1]).max() > 0.01


def test_shifted_times_are_the_pipelines_own_sigmas(pipeline: Any) -> None:
    edit(pipeline, PocketWorld("heldout", 1)[0], [0], steps=4)
    torch.testing.assert_close(
        shifted(torch.linspace(1, 0.25, 4), EDITOR.shift),
        pipeline.scheduler.sigmas[:4].float().cpu(),
        atol=1e-5,
        rtol=0,
    )
