"""The second pocket editor from its first weights to its files: what needs no trained ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

from deploy.configs import load_config
from rc_grpo.editor.families.flux2_klein.full_size import SCHEDULER
from rc_grpo.editor.files import model_source
from rc_grpo.editor.loading import load_editor
from rc_grpo.editor.registry import find
from rc_grpo.editor.stock.schedule import levels
from rc_grpo.pocket import KLEIN_TEXT_SLOTS, evaluate, train
from rc_grpo.pocket.editors import NAMES, named, of
from rc_grpo.pocket.editors.klein import EDITOR, READ, build_tokenizer
from rc_grpo.pocket.grammar import phrases
from rc_grpo.pocket.making import vae
from rc_grpo.pocket.making.flow import shifted
from rc_grpo.pocket.making.pairs import to_float
from rc_grpo.pocket.making.vae import latent_means, load_vae, save_vae
from rc_grpo.pocket.photographs import photographs
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.seeds import normal
from tests.families import randomise, source

CONFIG = load_config("pocket_klein").editor
INSTRUCTIONS = ["Add a large cat in the top left", "please remove the small key from the picture."]
SIGMA = 0.75
"""Its thousandfold divided by a thousand is itself, to the bit."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an editor in which every weight matters."""
    made, folder = EDITOR.build_pipeline(0), tmp_path_factory.mktemp("klein")
    for seed, name in enumerate(("transformer", "text_encoder", "vae")):
        randomise(getattr(made, name), seed)
    made.vae.bn.running_mean.copy_(torch.linspace(-1, 1, 128))
    made.vae.bn.running_var.copy_(torch.linspace(0.5, 2, 128))
    EDITOR.save(made, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    loaded = Flux2KleinPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_stock_pipeline_loads_what_is_saved_in_half_the_bytes_in_one_precision(folder: Path, pipeline: Any) -> None:
    models = [getattr(pipeline, name) for name in ("transformer", "text_encoder", "vae")]
    weights = [weight for model in models for weight in model.parameters()]
    assert {weight.dtype for weight in weights} == {torch.float32}
    written = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert 2 * sum(map(torch.Tensor.numel, weights)) <= written < 16e6


def test_training_sees_the_text_as_the_stock_pipeline_hands_it_over(pipeline: Any) -> None:
    stock, _ = pipeline.encode_prompt(INSTRUCTIONS, max_sequence_length=KLEIN_TEXT_SLOTS)
    with torch.no_grad():
        ours = EDITOR.field(pipeline).prompt(*EDITOR.read(pipeline, INSTRUCTIONS))
    assert float((ours - stock.detach()).abs().max()) <= 1e-5
    assert float(stock.detach().std()) > 0.1


def test_the_field_that_is_trained_is_the_familys_velocity(folder: Path, pipeline: Any) -> None:
    editor = load_editor(CONFIG.model_copy(update={"model": str(folder)}), seed=0)
    picture, noise = source(128, 128), normal(5, 64, 128)[None]
    pixels = to_float(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])
    for instruction in INSTRUCTIONS:
        conditions = editor.encode_image(picture, instruction)
        with torch.no_grad():
            theirs = editor.velocity(conditions)(noise, SIGMA)
            reference = EDITOR.tokens(pipeline.vae, latent_means(pipeline.vae, pixels))
            texts = EDITOR.read(pipeline, [instruction])
            ours = EDITOR.field(pipeline)(noise, reference, torch.tensor([SIGMA]), *texts)
        assert float((ours - theirs).abs().max()) <= 1e-5
        assert float(theirs.std()) > 0.1


def test_what_is_never_run_is_not_trained_and_all_else_is() -> None:
    field = EDITOR.field(EDITOR.build_pipeline(0))
    randomise(field, 4).train()
    noise = normal(6, 3, 64, 128)
    tokens, valid = EDITOR.read(Flux2KleinPipelineLike(), INSTRUCTIONS)
    velocity = field(noise[:2], noise[1:], torch.tensor([0.9, 0.2]), tokens, valid)
    velocity.square().mean().backward()
    still = {name for name, weight in field.named_parameters() if weight.grad is None}
    assert still == {name for name, weight in field.named_parameters() if not weight.requires_grad}
    assert {name.split(".")[2] for name in still} == {"norm", "layers"}
    assert {name.split(".")[3] for name in still if ".layers." in name} == {str(READ[-1])}


class Flux2KleinPipelineLike:
    tokenizer = build_tokenizer()


def test_every_instruction_fits_its_slots_inside_the_template_one_token_a_word() -> None:
    tokenizer, instructions = Flux2KleinPipelineLike.tokenizer, list(phrases())
    _, valid = EDITOR.read(Flux2KleinPipelineLike(), instructions)
    words = [len(text.replace(".", " .").split()) for text in instructions]
    template = len(tokenizer.tokenize("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"))
    assert template == 12
    assert valid.sum(dim=1).tolist() == [template + count for count in words]
    assert max(words) + template <= KLEIN_TEXT_SLOTS <= max(words) + template + 4
    assert tokenizer.decode(tokenizer("Add a purple dinosaur!").input_ids) == "Add a purple dinosaur!"


def test_latents_are_of_mean_zero_and_variance_one_and_come_back_from_a_sitting(tmp_path: Path) -> None:
    made, read = EDITOR.build_vae(), EDITOR.build_vae()
    means = normal(7, 64, 32, 16, 16) * torch.linspace(0.2, 3, 32)[:, None, None] + torch.linspace(-2, 2, 16)
    EDITOR.measure(made, means)
    tokens = EDITOR.tokens(made, means)
    assert tokens.shape == (64, 64, 128)
    torch.testing.assert_close(tokens.mean(dim=(0, 1)), torch.zeros(128), atol=1e-4, rtol=0)
    torch.testing.assert_close(tokens.std(dim=(0, 1), correction=0), torch.ones(128), atol=2e-3, rtol=0)
    save_vae(made, tmp_path)
    load_vae(read, tmp_path)
    torch.testing.assert_close(EDITOR.tokens(read, means), tokens, atol=1e-2, rtol=0)


@pytest.mark.parametrize(("steps", "within"), [(8, 1e-5), (7, 2e-3), (6, 4e-3)])
def test_times_are_shifted_as_the_stock_schedule_shifts_them(steps: int, within: float) -> None:
    stock = levels(SCHEDULER, steps, compute_empirical_mu(64, steps))[:-1].float()
    torch.testing.assert_close(shifted(torch.linspace(1, 1 / steps, steps), EDITOR.shift), stock, atol=within, rtol=0)


def test_evaluation_edits_one_picture_from_each_noise(pipeline: Any) -> None:
    images = evaluate.edit(pipeline, PocketWorld("heldout", 1)[0], [0, 1], steps=2)
    assert images.shape == (2, 128, 128, 3)
    assert np.abs(images[0] - images[1]).max() > 0.01
    alone = evaluate.edit(pipeline, PocketWorld("heldout", 1)[0], [1], steps=2)
    np.testing.assert_allclose(alone[0], images[1], atol=1e-4)


def test_every_editor_is_found_by_its_name_and_by_its_pipeline(pipeline: Any) -> None:
    assert [named(name).name for name in NAMES] == list(NAMES)
    assert of(pipeline) is EDITOR
    with pytest.raises(LookupError, match="no pocket editor runs in a Module"):
        of(torch.nn.Module())


def test_the_packaged_configuration_names_the_family_the_folder_and_the_slots() -> None:
    assert find(CONFIG).name == "flux2-klein"
    assert Path(model_source(CONFIG)) == EDITOR.folder
    assert (CONFIG.text_tokens, CONFIG.guidance) == (KLEIN_TEXT_SLOTS, 1)


@pytest.mark.slow
def test_sittings_lead_from_photographs_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(part: str, out: str, *more: str) -> None:
        options = ("--editor", "klein", "--device", "cpu", "--workers", "1", "--minutes", "0", "--batch", "2")
        train.main(["--part", part, "--out", str(tmp_path / out), "--vae", str(tmp_path / "vae"), *options, *more])

    monkeypatch.setattr(vae, "_MEASURED_ON", 32)
    monkeypatch.setattr(train, "photographs", lambda split: photographs(split)[:4])
    draw = evaluate.grid
    monkeypatch.setattr(evaluate, "grid", lambda pipeline, tasks: draw(pipeline, 1, 1))
    tiny = ("--scenes", "2", "--variants", "1", "--eval-tasks", "3", "--eval-noises", "1")
    run("vae", "vae", "--views", "9", "--eval-scenes", "2")
    run("flow", "one", *tiny)
    run("flow", "two", *tiny, "--start", str(tmp_path / "one"))
    run("model", "two", "--start", str(tmp_path / "two"))
    pipeline = Flux2KleinPipeline.from_pretrained(tmp_path / "two" / "model")
    assert float(pipeline.vae.bn.running_var.min()) > 0
    assert float((pipeline.vae.bn.running_var - 1).abs().max()) > 0.01
    begun = EDITOR.build_pipeline(0).text_encoder.state_dict()
    for name, weight in pipeline.text_encoder.state_dict().items():
        torch.testing.assert_close(weight, begun[name], atol=1e-2, rtol=1e-2)
