"""An editor's weights are all out of its files, and those are safetensors: anything else is said, and loads nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from deploy.configs import load_config
from rc_grpo.config import AcdConfig, EditorConfig
from rc_grpo.editor.files import ModelNotFoundError
from rc_grpo.editor.loading import check_model, load_denoiser, load_pipeline
from rc_grpo.editor.weights.pretrained import load_pipeline as load_whole
from rc_grpo.pocket import MODEL_PATH

COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_PATH, tmp_path / "model"))


def of(folder: Path) -> EditorConfig:
    config = load_config("pocket", (f"editor.model={folder}",))
    return config.editor


def weights(folder: Path, component: str) -> Path:
    (path,) = (folder / component).glob("*.safetensors")
    return path


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13934088\n")


def pickled(path: Path) -> None:
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def a_shard_short(path: Path) -> None:
    held = load_file(path)
    first, *others = sorted(held)
    save_file({first: held[first]}, path.with_name(f"{path.stem}-00001-of-00002.safetensors"), {"format": "pt"})
    named = {name: f"{path.stem}-0000{1 + (name != first)}-of-00002.safetensors" for name in (first, *others)}
    path.with_name(f"{path.stem}.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    path.unlink()


def one_short(path: Path) -> None:
    held = load_file(path)
    del held[max(name for name in held if name.endswith("weight"))]
    save_file(held, path, {"format": "pt"})


def another_shape(path: Path) -> None:
    held = load_file(path)
    name = max(name for name in held if name.endswith("weight"))
    save_file(held | {name: torch.zeros(3, 5)}, path, {"format": "pt"})


def no_number(path: Path) -> None:
    held = load_file(path)
    held[max(name for name in held if name.endswith("weight"))].view(-1)[0] = float("nan")
    save_file(held, path, {"format": "pt"})


def load(component: str, editor: EditorConfig) -> None:
    if component == "transformer":
        load_denoiser(editor, 0)
    else:
        load_pipeline(editor, transformer=None)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (cut_off, "bytes, its header says"),
        (pointer, "is not safetensors, or is cut off"),
        (pickled, "are pickles .* save them as safetensors"),
        (a_shard_short, "00002-of-00002.safetensors is missing"),
    ],
)
def test_a_broken_file_is_said_by_name_before_anything_is_loaded(
    broken: Callable[[Path], None], said: str, component: str, folder: Path
) -> None:
    broken(weights(folder, component))
    with pytest.raises(ModelNotFoundError, match=rf"cannot be loaded: .*\b{component}\b.*{said}"):
        check_model(of(folder), AcdConfig())
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        load(component, of(folder))


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (one_short, r"its {} lacks \d of its weights"),
        (another_shape, "its {} cannot be read"),
        (no_number, "1 weights of its {} hold a NaN"),
    ],
)
def test_no_weight_is_drawn_at_random_or_is_no_number(
    broken: Callable[[Path], None], said: str, component: str, folder: Path
) -> None:
    broken(weights(folder, component))
    with pytest.raises(ModelNotFoundError, match=said.format(component)):
        load(component, of(folder))
    if component.startswith("text_encoder") and broken is not no_number:
        with pytest.raises(ModelNotFoundError, match=rf"{component} (lacks|has another shape of) \d of the tensors"):
            check_model(of(folder), AcdConfig())


def variant(folder: Path) -> None:
    path = weights(folder, "vae")
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))


def without_vocabulary(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()


def half_an_index(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_bytes(path.read_bytes()[:-10])


def half_a_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer_2" / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000])


def quantised(folder: Path) -> None:
    path = folder / "transformer" / "config.json"
    method = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    path.write_text(json.dumps(json.loads(path.read_text()) | method))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (variant, r"its vae has no weights: .* a variant, diffusion_pytorch_model.fp16.safetensors"),
        (lambda folder: weights(folder, "vae").unlink(), "its vae has no weights"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "its scheduler is missing"),
        # Without one transformers makes a tokenizer that knows no word, and goes on.
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "its tokenizer is missing"),
        (without_vocabulary, "its tokenizer has no vocabulary: .* none of merges.txt, tokenizer.json, vocab.json"),
        (half_an_index, "model_index.json is no JSON, or is cut off"),
        (half_a_tokenizer, "tokenizer_2/tokenizer.json is no JSON, or is cut off"),
    ],
)
def test_a_component_that_is_not_whole_is_said_where_it_is_checked_and_where_it_is_loaded(
    damage: Callable[[Path], None], said: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(ModelNotFoundError, match=said):
        check_model(of(folder), AcdConfig())
    with pytest.raises(ModelNotFoundError, match=said):
        load_pipeline(of(folder), transformer=None)


def test_a_quantised_transformer_is_refused_with_what_to_name_instead(folder: Path) -> None:
    quantised(folder)
    with pytest.raises(
        ModelNotFoundError, match=r"saved quantised \(bitsandbytes\).*Name the model that it was made of"
    ):
        check_model(of(folder), AcdConfig())
    with pytest.raises(ModelNotFoundError, match=r"its transformer cannot be read .*bitsandbytes"):
        load_denoiser(of(folder), 0)


def test_a_tokenizer_of_another_model_is_refused_before_it_names_a_token_that_its_encoder_has_not(folder: Path) -> None:
    path = weights(folder, "text_encoder_2")
    held = load_file(path)
    save_file(held | {"shared.weight": held["shared.weight"][:100].clone()}, path, {"format": "pt"})
    config = folder / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 100}))
    with pytest.raises(ModelNotFoundError, match="tokenizer has 212 tokens, its text_encoder_2 knows 100"):
        load_pipeline(of(folder), transformer=None)


def test_a_whole_model_is_loaded_as_diffusers_loads_it() -> None:
    ours = load_pipeline(of(MODEL_PATH))
    stock = diffusers.FluxKontextPipeline.from_pretrained(MODEL_PATH)
    for component in COMPONENTS:
        expected, found = (getattr(pipeline, component) for pipeline in (stock, ours))
        assert type(found) is type(expected)
        assert not found.training
        assert found.state_dict().keys() == expected.state_dict().keys()
        for name, tensor in found.state_dict().items():
            assert tensor.dtype == expected.state_dict()[name].dtype
            assert torch.equal(tensor, expected.state_dict()[name]), name


def test_a_pipeline_of_the_hub_is_asked_for_once_and_without_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(_: type, name: str, **options: object) -> str:
        asked.append((name, options))
        return str(MODEL_PATH)

    kind = diffusers.FluxKontextPipeline
    monkeypatch.setattr(kind, "download", classmethod(download))
    loaded = load_whole(kind, "some/editor", "v1", torch.float32, transformer=None)
    assert asked == [("some/editor", {"revision": "v1", "use_safetensors": True, "transformer": None})]
    assert loaded.transformer is None
    assert all(getattr(loaded, component) is not None for component in COMPONENTS[1:])


def test_an_index_of_another_models_shards_is_said_by_tensor(folder: Path) -> None:
    path = weights(folder, "text_encoder_2")
    a_shard_short(path)
    for name in ("00001", "00002"):
        # Both are whole files, and neither has what the index says.
        save_file({"other": torch.zeros(2)}, path.with_name(f"model-{name}-of-00002.safetensors"), {"format": "pt"})
    with pytest.raises(
        ModelNotFoundError, match=r"text_encoder_2/model.safetensors.index.json has .* does not hold it"
    ):
        check_model(of(folder), AcdConfig())
