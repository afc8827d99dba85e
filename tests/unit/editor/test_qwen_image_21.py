"""What is Qwen-Image-2.1's own: parts of its sequence, slots of its sources, levels of its pipeline, transparency."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from rc_grpo.algorithm.solver import integrate
from rc_grpo.editor.families.qwen_image_21.architecture import of_config
from rc_grpo.editor.families.qwen_image_21.attention import Parts, causal
from rc_grpo.editor.families.qwen_image_21.full_size import TRANSFORMER
from rc_grpo.editor.families.qwen_image_21.transformer import Qwen21Body, _spans
from rc_grpo.editor.family import Tokens
from rc_grpo.editor.loading import load_denoiser, load_editor, load_pipeline
from rc_grpo.editor.registry import find
from rc_grpo.editor.stock.schedule import SCHEDULER
from rc_grpo.images import decode_rgb, encode_png
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal
from tests.families import QWEN_21, source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert QWEN_21.make is not None
    QWEN_21.make(folder / QWEN_21.name)
    return folder


def test_parts_are_text_source_text_target_and_each_sees_what_is_ahead() -> None:
    """By hand: two words, a source of four tokens, one word, a source of eight, a word, a target of four."""
    spans = _spans([4, 8], [2, 4, 5])
    assert spans == ((2, 6), (7, 15))
    parts = list(Parts(spans, target=4).of(20))
    assert parts == [(0, 2, True), (2, 6, False), (6, 7, True), (7, 15, False), (15, 16, True), (16, 20, False)]
    kinds = "ttssssuSSSSSSSSvTTTT"
    seen = torch.zeros(20, 20, dtype=torch.bool)
    for start, stop, text in parts:
        masked = causal(start, stop, seen) if text else None
        seen[start:stop, :stop] = True if masked is None else masked[0, 0]
    for query in range(20):
        for key in range(20):
            together = kinds[query] == kinds[key] and kinds[query] in "sST"
            assert bool(seen[query, key]) == (key <= query or together)


def test_a_picture_of_another_shape_and_its_smaller_source_are_where_the_stock_pipeline_has_them(folder: Path) -> None:
    config = QWEN_21.editor(folder, 1.0).model_copy(update={"resolution": 96})
    editor, pipeline = load_editor(config, seed=0), load_pipeline(config)
    conditions = editor.encode_image(source(64, 96), "make it red")
    assert (conditions.height, conditions.width, conditions.sources) == (64, 128, ((32, 96),))
    shown = np.asarray(Image.fromarray(source(64, 96)).resize((128, 64), Image.Resampling.LANCZOS))
    seen, take_step = [], pipeline.scheduler.step

    def watched(velocity: torch.Tensor, timestep: object, state: torch.Tensor, **options: object) -> object:
        seen.append(state.clone())
        return take_step(velocity, timestep, state, **options)

    pipeline.scheduler.step = watched
    image = find(config).edit(pipeline, config, shown, "make it red", steps=2, seed=5)
    with torch.no_grad():
        states = integrate(editor.velocity(conditions), seen[0], editor.sigmas(2, conditions))
    assert torch.equal(states[1], seen[1])
    assert np.array_equal(editor.decode(states[-1], conditions)[0], image)


def test_a_source_that_the_text_encoder_enlarges_is_refused(folder: Path) -> None:
    """Its processor takes no picture of less than 32 x 32."""
    editor = load_editor(QWEN_21.editor(folder), seed=0)
    editor.codec.pipeline.processor.image_processor.size["shortest_edge"] = 128 * 128
    with pytest.raises(ValueError, match=r"a source of 64x64 pixels at another size; set editor\.source_resolution"):
        editor.encode_image(source(), "make it red")


def test_levels_of_the_pipelines_own_are_shifted_as_it_shifts_them_and_are_as_many_as_its_steps(folder: Path) -> None:
    config = QWEN_21.editor(folder, 1.0)
    pipeline, own = load_pipeline(config), [1.0, 0.6, 0.3]
    pipeline.register_to_config(sample_sigmas=own)
    find(config).edit(pipeline, config, source(), "make it red", steps=7, seed=5)
    architecture = of_config(pipeline.transformer.config, SCHEDULER, own)
    conditions = (body := Qwen21Body(pipeline.transformer, architecture)).canary()
    torch.testing.assert_close(body.sigmas(3, conditions), pipeline.scheduler.sigmas.double())
    with pytest.raises(ValueError, match="it takes 3 steps, not 7"):
        body.sigmas(7, conditions)


def test_a_model_whose_text_follows_the_targets_time_is_refused() -> None:
    with pytest.raises(ValueError, match="causal_condition off"):
        of_config(dict(TRANSFORMER) | {"causal_condition": False}, SCHEDULER)


def test_what_is_transparent_in_an_edit_lies_on_white_as_a_sources_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load_editor(QWEN_21.editor(folder), seed=0)
    conditions = editor.encode_image(source(), "make it red")
    levels = torch.rand(1, 4, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    monkeypatch.setattr(editor.codec.pipeline.vae, "decode", lambda latents, return_dict: (levels,))
    rgba = ((levels[0, :, 0] / 2 + 0.5) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    expected = decode_rgb(encode_png(rgba))
    assert np.array_equal(editor.decode(torch.zeros(1, *editor.latent_shape(conditions)), conditions)[0], expected)
    assert (expected != rgba[..., :3]).any()


@torch.no_grad()
def test_operations_are_those_that_a_pass_is_seen_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = load_denoiser(QWEN_21.editor(folder, 1.0), seed=0)
    side, front, behind = 16, 15, 25
    slots = front + np.arange(side**2 // 4)
    arrays = {"reference": normal(1, side**2, 8), "prompt": normal(2, front + len(slots) + behind, 24)}
    conditions = Conditions(
        height=16 * side,
        width=16 * side,
        arrays={name: tensor.numpy() for name, tensor in arrays.items()} | {"slots": slots},
        text_valid=np.ones(behind, dtype=np.bool_),
    )
    pairs, attend = [], torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        pairs.append(query.shape[2] * key.shape[2])
        return attend(query, key, *arguments, **options)  # type: ignore[arg-type, no-any-return]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with denoiser.policy.disabled(), FlopCounterMode(display=False) as counter:
        denoiser.velocity(conditions)(normal(3, 1, side**2, 8), 0.5)
    blocks = [counter.flop_counts[name] for name in counter.flop_counts if re.search(r"transformer_blocks\.\d+$", name)]
    architecture = denoiser.body.architecture
    projections, attention = architecture.forward_tflop(Tokens(front + behind, side**2, side**2))
    counted = sum(sum(count for kind, count in block.items() if "attention" not in str(kind)) for block in blocks)
    assert counted == pytest.approx(projections * 1e12)
    # By the text that is ahead of the source the formula is off: it knows text as it lies behind.
    assert 4 * sum(pairs) * architecture.width == pytest.approx(attention * 1e12, rel=0.005)
