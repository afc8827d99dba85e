import torch

from rc_grpo.config import AcdConfig, EditorConfig
from rc_grpo.editor import lora
from rc_grpo.editor.families.flux_kontext import full_size
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.loading import check_model, load_architecture

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
