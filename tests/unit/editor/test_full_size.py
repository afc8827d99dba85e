import pytest
import torch

from deploy.configs import load_config
from rc_grpo.config import AcdConfig, EditorConfig, LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.families.flux2_klein import full_size as klein
from rc_grpo.editor.families.flux_kontext import full_size
from rc_grpo.editor.families.qwen_image_21 import full_size as qwen_21
from rc_grpo.editor.families.qwen_image_edit import full_size as qwen
from rc_grpo.editor.family import Tokens
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.loading import check_model, load_architecture
from rc_grpo.editor.registry import find
from tests.families import KLEIN, QWEN, QWEN_21

EDITOR = EditorConfig(model=FULL_SIZE)


def test_the_architecture_is_that_of_flux_kontext() -> None:
    transformer = full_size.build_transformer(torch.device("meta"), torch.bfloat16)
    assert sum(parameter.numel() for parameter in transformer.parameters()) == 11_901_408_320
    assert {parameter.dtype for parameter in transformer.parameters()} == {torch.bfloat16}
    expected = lora.adapted(load_architecture(EDITOR).projections, EDITOR.lora.targets)
    assert len(lora.targets(transformer, expected)) == 266


def test_the_encoders_are_those_of_flux_kontext() -> None:
    pipeline = full_size.build_pipeline(torch.device("meta"), torch.bfloat16, transformer=None)
    sizes = {
        name: sum(parameter.numel() for parameter in getattr(pipeline, name).parameters())
        for name in ("vae", "text_encoder", "text_encoder_2")
    }
    assert sizes == {"vae": 83_819_683, "text_encoder": 123_060_480, "text_encoder_2": 4_762_310_656}
    assert pipeline.vae_scale_factor * 2 == full_size.TOKEN


def test_it_has_the_layers_that_attention_is_recorded_in_by_default() -> None:
    check_model(EDITOR, AcdConfig())


@pytest.mark.parametrize(
    ("model", "transformer", "encoder", "modules"),
    [
        ("full-size-klein-4b", 3_875_544_576, 4_022_468_096, 80),
        ("full-size-klein-9b", 9_078_581_248, 8_190_735_360, 112),
    ],
)
def test_the_architectures_are_those_of_flux2_klein(model: str, transformer: int, encoder: int, modules: int) -> None:
    editor = EditorConfig(model=model, lora=LoraSettings(targets=KLEIN.targets))
    architecture = load_architecture(editor)
    size, meta = klein.size_of(editor), torch.device("meta")
    assert size is not None
    built = klein.build_transformer(size, meta, torch.bfloat16)
    assert sum(weight.numel() for weight in built.parameters()) == transformer == architecture.parameters
    assert len(lora.targets(built, lora.adapted(architecture.projections, editor.lora.targets))) == modules
    pipeline = klein.build_pipeline(size, meta, torch.bfloat16, transformer=None)
    assert sum(weight.numel() for weight in pipeline.text_encoder.parameters()) == encoder
    weights = [*pipeline.text_encoder.parameters(), *pipeline.vae.parameters()]
    assert 2 * sum(weight.numel() for weight in weights) / 2**30 == pytest.approx(architecture.encoders_gib, abs=0.1)
    assert pipeline.vae_scale_factor * 2 == klein.TOKEN == architecture.token
    assert pipeline.vae.config.latent_channels * 4 == built.config.in_channels


def test_the_architecture_is_that_of_qwen_image_edit() -> None:
    editor = EditorConfig(model="full-size-qwen-image-edit", lora=LoraSettings(targets=QWEN.targets))
    architecture, meta = load_architecture(editor), torch.device("meta")
    built = qwen.build_transformer(meta, torch.bfloat16)
    assert sum(weight.numel() for weight in built.parameters()) == 20_430_401_088 == architecture.parameters
    assert len(lora.targets(built, lora.adapted(architecture.projections, editor.lora.targets))) == 60 * 12
    pipeline = qwen.build_pipeline(meta, torch.bfloat16, transformer=None)
    encoder = sum(weight.numel() for weight in pipeline.text_encoder.parameters())
    assert encoder == 8_292_166_656
    weights = [*pipeline.text_encoder.parameters(), *pipeline.vae.parameters()]
    assert 2 * sum(weight.numel() for weight in weights) / 2**30 == pytest.approx(architecture.encoders_gib, abs=0.1)
    assert pipeline.vae_scale_factor * 2 == qwen.TOKEN == architecture.token


def test_the_architecture_is_that_of_qwen_image_21() -> None:
    editor = EditorConfig(model="full-size-qwen-image-21", lora=LoraSettings(targets=QWEN_21.targets))
    architecture, meta = load_architecture(editor), torch.device("meta")
    built = qwen_21.build_transformer(meta, torch.bfloat16)
    assert sum(weight.numel() for weight in built.parameters()) == architecture.parameters
    assert architecture.parameters == pytest.approx(7.1e9, rel=0.01)
    assert len(lora.targets(built, lora.adapted(architecture.projections, editor.lora.targets))) == 32 * 7
    pipeline = qwen_21.build_pipeline(meta, torch.bfloat16, transformer=None)
    weights = [*pipeline.text_encoder.parameters(), *pipeline.vae.parameters()]
    assert 2 * sum(weight.numel() for weight in weights) / 2**30 == pytest.approx(architecture.encoders_gib, abs=0.1)
    assert pipeline.vae_scale_factor == qwen_21.TOKEN == architecture.token
    assert pipeline.vae.config.z_dim == built.config.in_channels


def test_a_block_causal_model_does_not_pay_for_what_it_masks() -> None:
    """By hand, at 1024 pixels: half of the pairs that a whole matrix has between source and target are not there."""
    sizes = load_architecture(EditorConfig(model="full-size-qwen-image-21"))
    image, text = 4096, 48
    projections, attention = sizes.forward_tflop(Tokens(text, image, image))
    assert projections == pytest.approx(2 * 13 * 4096**2 * 32 * (2 * image + text) / 1e12)
    pairs = image * (2 * image + text) + image * image + text * (image + text)
    assert attention == pytest.approx(4 * pairs * 4096 * 32 / 1e12)
    assert projections + attention == pytest.approx(142, abs=1)


def test_attention_that_a_model_has_not_is_refused_from_its_files_alone() -> None:
    editor = EditorConfig(model="full-size-qwen-image-21", lora=LoraSettings(targets=QWEN_21.targets))
    with pytest.raises(ValueError, match=r"never sees the image.*set rollout\.acd\.direction=to_text"):
        check_model(editor, AcdConfig())
    check_model(editor, AcdConfig(direction="to_text"))
    check_model(editor, AcdConfig(enabled=False))


@pytest.mark.parametrize(
    ("config", "modules", "recorded"),
    [
        ("flux_kontext_dev", 266, range(47, 57)),
        ("flux_kontext_dev_one_gpu", 266, range(47, 57)),
        ("flux2_klein_4b", 80, range(21, 25)),
        ("flux2_klein_4b_one_gpu", 80, range(21, 25)),
        ("qwen_image_edit_2511", 720, range(49, 60)),
        ("qwen_image_21", 224, range(26, 32)),
    ],
)
def test_a_packaged_config_binds_its_targets_and_records_the_last_layers(
    config: str, modules: int, recorded: range
) -> None:
    run = load_config(config)
    family = find(run.editor)
    same = run.editor.model_copy(update={"model": family.hub_ids[run.editor.model]})
    architecture = load_architecture(same)
    assert len(lora.adapted(architecture.projections, run.editor.lora.targets)) == modules
    assert run.rollout.acd.chosen(architecture.layers) == tuple(recorded)
