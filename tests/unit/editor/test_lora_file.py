"""One LoRA file is one policy: what diffusers applies of it is what we apply, or it is refused by name in one line."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import FluxKontextPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft.tuners.lora import LoraLayer
from torch import Tensor

from deploy.configs import load_config
from deploy.evaluating.edit import edit_image
from deploy.evaluating.preflight import check_training
from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.export import check_lora, for_any_loader, read_lora, save_lora
from rc_grpo.editor.loading import load_architecture
from rc_grpo.pocket.editors.kontext import build_transformer
from tests.conftest import TINY, tiny_denoiser

POCKET = load_config("pocket", ("editor.lora.rank=4", "editor.lora.alpha=8")).editor
PROJECTIONS = lora.adapted(load_architecture(POCKET).projections, POCKET.lora.targets)
SHAPES = {
    f"transformer.{name}.lora_{matrix}.weight": shape
    for name, (out, width) in PROJECTIONS.items()
    for matrix, shape in (("A", (4, width)), ("B", (out, 4)))
}
FIRST = next(iter(PROJECTIONS))
NAME = "pytorch_lora_weights.safetensors"
Tensors = dict[str, Tensor]


def tensors() -> Tensors:
    torch.manual_seed(0)
    return {name: 0.1 * torch.randn(shape) for name, shape in SHAPES.items()}


def write(folder: Path, weights: Tensors, config: dict[str, Any] | None = None, name: str = NAME) -> Path:
    """A file as save_lora_weights writes it; with ``config`` {} and others over rank 4 and alpha 8."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = None
    if config is not None:
        whole = {"r": 4, "lora_alpha": 8, "target_modules": list(POCKET.lora.targets)} | config
        told = {f"transformer.{key}": value for key, value in whole.items() if value is not ...}
        metadata = {"lora_adapter_metadata": json.dumps(told), "format": "pt"}
    safetensors.torch.save_file({key: value.contiguous() for key, value in weights.items()}, folder / name, metadata)
    return folder


def as_diffusers_applies(folder: Path) -> Tensors:
    """What the stock pipeline adds to each projection, by its own reading of the folder."""
    transformer = build_transformer()
    state, alphas, metadata = FluxKontextPipeline.lora_state_dict(folder, return_alphas=True, return_lora_metadata=True)
    FluxKontextPipeline.load_lora_into_transformer(state, alphas, transformer, adapter_name="x", metadata=metadata)
    layers = {name: module for name, module in transformer.named_modules() if isinstance(module, LoraLayer)}
    return {name: layer.get_delta_weight("x").detach() for name, layer in layers.items()}


def as_we_apply(weights: Tensors, rank_and_alpha: LoraSettings = POCKET.lora) -> Tensors:
    scale = rank_and_alpha.alpha / rank_and_alpha.rank
    modules = {name.rsplit(".lora_", 1)[0] for name in weights}
    return {name: scale * weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"] for name in modules}


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], rtol=1e-5, atol=1e-7) for k in one)


def alphas(value: float = 8.0) -> Tensors:
    return {f"transformer.{name}.alpha": torch.tensor(value) for name in PROJECTIONS}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"lora_alpha": 3},
        {"use_rslora": True},
        {"use_rslora": True, "lora_alpha": 5.5},
        {"alpha_pattern": {"attn.to_q": 1, "transformer_blocks.0.attn.to_k": 2}},
        {"alpha_pattern": {"attn.to_q": 1}, "use_rslora": True},
        {"r": 9, "rank_pattern": {r".*to.*|.*add.*": 4}},
        {"lora_dropout": 0.5, "inference_mode": True, "base_model_name_or_path": "x", "peft_version": "0.1"},
        {"init_lora_weights": "gaussian", "task_type": None, "layers_pattern": None, "loftq_config": {}},
    ],
)
def test_what_the_metadata_says_is_applied_as_diffusers_applies_it(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = write(tmp_path, tensors(), config)
    ours = as_we_apply(check_lora(POCKET, folder))
    assert same(ours, as_diffusers_applies(folder))
    if config.keys() & {"lora_alpha", "use_rslora", "alpha_pattern"}:
        assert not same(ours, as_we_apply({k.removeprefix("transformer."): v for k, v in tensors().items()}))


@pytest.mark.parametrize("alpha", [8.0, 4.0, 1.5])
def test_alpha_tensors_in_a_file_without_metadata_are_applied_as_diffusers_applies_them(
    tmp_path: Path, alpha: float
) -> None:
    folder = write(tmp_path, tensors() | alphas(alpha))
    assert same(as_we_apply(check_lora(POCKET, folder)), as_diffusers_applies(folder))


def test_alpha_tensors_count_beside_metadata_if_they_agree_and_are_refused_by_name_if_not(tmp_path: Path) -> None:
    expected = check_lora(POCKET, write(tmp_path, tensors(), {}))
    agreeing = check_lora(POCKET, write(tmp_path, tensors() | alphas(), {}))
    assert lora.digest(agreeing) == lora.digest(expected)
    one = {f"transformer.{FIRST}.alpha": torch.tensor(4.0)}
    with pytest.raises(ValueError, match=rf"{FIRST}\.alpha is 4, and its lora_adapter_metadata makes it 8"):
        check_lora(POCKET, write(tmp_path, tensors() | alphas() | one, {}))
    with pytest.raises(ValueError, match="does not say its rank and alpha"):
        check_lora(POCKET, write(tmp_path, tensors() | one))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"bias": "lora_only"}, "bias = 'lora_only'"),
        ({"modules_to_save": ["proj_out"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights = 'olora'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"use_qalora": True}, "use_qalora"),
        ({"peft_type": "LOKR"}, "peft_type = 'LOKR'"),
        ({"of_next_year": 3}, "of_next_year = 3"),
        ({"r": 8}, "has rank 8, and its matrices have 4"),
        ({"rank_pattern": {"attn.to_q": 3}}, "has rank 3, and its matrices have 4"),
        ({"rank_pattern": {"(": 3}}, "no pattern of modules"),
        ({"alpha_pattern": [1]}, "no pattern of modules"),
        ({"alpha_pattern": {"attn.to_q": "8"}}, "'8', which is no finite number"),
        ({"lora_alpha": None}, "does not say its rank and alpha"),
        ({"r": ...}, "does not say its rank and alpha"),
        ({"lora_alpha": float("nan")}, "nan, which is no finite number"),
        ({"lora_alpha": float("inf")}, "inf, which is no finite number"),
        ({"lora_alpha": True}, "True, which is no finite number"),
    ],
)
def test_what_else_would_change_the_policy_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(named)) as refused:
        check_lora(POCKET, write(tmp_path, tensors(), config))
    assert "\n" not in str(refused.value)
    assert NAME in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"transformer.r": ' * 3000])
def test_metadata_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    safetensors.torch.save_file(tensors(), tmp_path / NAME, {"lora_adapter_metadata": text})
    with pytest.raises(ValueError, match=r"lora_adapter_metadata is no JSON"):
        check_lora(POCKET, tmp_path)


def renamed(change: Callable[[str], str]) -> Tensors:
    return {change(name): tensor for name, tensor in tensors().items()}


def with_one(name: str) -> Tensors:
    return tensors() | {name: torch.zeros(4, 4)}


KOHYA = {
    name.replace(".", "_").replace("transformer_", "lora_unet_", 1) + suffix: torch.zeros(4, 4)
    for name in ("transformer.single_blocks.0.linear1",)
    for suffix in (".lora_down.weight", ".lora_up.weight")
}


@pytest.mark.parametrize(
    ("weights", "found", "way"),
    [
        (renamed(lambda n: n.replace("transformer.", "base_model.model.", 1)), "base_model.model", "save_lora_weights"),
        (renamed(lambda n: "base_model.model." + n), "base_model.model.transformer.", "save_lora_weights"),
        (KOHYA, "lora_unet_single_blocks_0_linear1.lora_down.weight", "kohya"),
        (
            renamed(lambda n: n.replace("lora_A", "lora_down").replace("lora_B", "lora_up")),
            "lora_down.weight",
            "save_lora_weights",
        ),
        (renamed(lambda n: n.removeprefix("transformer.")), "'single_transformer_blocks.0.", "without the prefix"),
        (renamed(lambda n: n.replace("transformer.", "unet.", 1)), "unet.", "without the prefix"),
        (renamed(lambda n: n.replace("transformer.", "diffusion_model.", 1)), "diffusion_model.", "save_lora_weights"),
        (renamed(lambda n: n.replace(".weight", ".default.weight")), "lora_A.default.weight", "transformer"),
        (renamed(lambda n: n.replace("lora_A.weight", "lora_A")), "lora_A'", "transformer"),
        (with_one("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"), "text_encoder", "leave"),
        (with_one(f"transformer.{FIRST}.lora_B.bias"), "lora_B.bias", "lora_bias"),
        (with_one(f"transformer.{FIRST}.lora_magnitude_vector"), "lora_magnitude_vector", "DoRA"),
        (with_one(f"transformer.{FIRST}.dora_scale"), "dora_scale", "DoRA"),
        (with_one(f"transformer.{FIRST}.lokr_w1"), "lokr_w1", "another kind"),
        (with_one("transformer.proj_out.weight"), "transformer.proj_out.weight", "editor.model"),
        ({"x_embedder.weight": torch.zeros(3, 3)}, "x_embedder.weight", "editor.model"),
    ],
)
def test_foreign_names_are_refused_with_one_of_theirs_and_one_of_ours(
    tmp_path: Path, weights: Tensors, found: str, way: str
) -> None:
    write(tmp_path, weights, {})
    for read in (lambda: check_lora(POCKET, tmp_path), lambda: read_lora(POCKET.lora, tmp_path)):
        with pytest.raises(ValueError, match=re.escape(found)) as refused:
            read()
        said = str(refused.value)
        assert way in said
        assert "\n" not in said
        assert "lora_A.weight" in said
        assert "is expected" in said
    with pytest.raises(ValueError, match=rf"'transformer\.{re.escape(FIRST)}\.lora_A\.weight' is expected"):
        check_lora(POCKET, tmp_path)


@pytest.mark.parametrize("missing", ["lora_A", "lora_B"])
@pytest.mark.parametrize("of", [[FIRST], list(PROJECTIONS)])
def test_half_a_pair_is_refused_by_name(tmp_path: Path, missing: str, of: list[str]) -> None:
    gone = {f"transformer.{name}.{missing}.weight" for name in of}
    write(tmp_path, {name: tensor for name, tensor in tensors().items() if name not in gone}, {})
    with pytest.raises(ValueError, match=rf"without 'transformer\..+\.{missing}\.weight'"):
        read_lora(POCKET.lora, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({f"transformer.{FIRST}.lora_A.weight": torch.zeros(4, 7)}), "from 7 to"),
        (lambda t: t.update({f"transformer.{FIRST}.lora_B.weight": torch.zeros(7, 4)}), "to 7, and that of"),
        (lambda t: t.update({f"transformer.{FIRST}.lora_B.weight": torch.zeros(7, 3)}), "which are no"),
        (lambda t: t.update({f"transformer.{FIRST}.lora_A.weight": torch.zeros(4)}), "which are no"),
        (lambda t: t.update({f"transformer.{FIRST}.lora_A.weight": torch.zeros(4, 1, 1, 160)}), "which are no"),
        (lambda t: t.update({f"transformer.{FIRST}.lora_A.weight": torch.zeros(4, 160).int()}), "floating point"),
    ],
)
def test_wrong_shapes_and_kinds_are_refused_by_name(
    tmp_path: Path, change: Callable[[Tensors], Any], said: str
) -> None:
    weights = tensors()
    change(weights)
    with pytest.raises(ValueError, match=said) as refused:
        check_lora(POCKET, write(tmp_path, weights, {}))
    assert f"transformer.{FIRST}" in str(refused.value)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_another_rank_is_refused_with_the_key_to_set(tmp_path: Path, rank: int) -> None:
    weights = {name: torch.zeros([rank if side == 4 else side for side in shape]) for name, shape in SHAPES.items()}
    with pytest.raises(ValueError, match=rf"was made with rank {rank} .*the configuration has 4; set editor.lora.rank"):
        check_lora(POCKET, write(tmp_path, weights, {"r": rank}))


@pytest.mark.parametrize("fewer", [True, False])
def test_other_targets_of_the_same_editor_are_told_by_the_key_to_set(tmp_path: Path, fewer: bool) -> None:
    part = {name: tensor for name, tensor in tensors().items() if ".to_q." in name}
    targets = POCKET.lora.model_copy(update={"targets": ("attn.to_q",)})
    editor = POCKET if fewer else POCKET.model_copy(update={"lora": targets})
    write(tmp_path, part if fewer else tensors(), {})
    one, other = (6, 28) if fewer else (28, 6)
    with pytest.raises(ValueError, match=rf"is for {one} modules, and pocket has {other} that editor\.lora\.targets"):
        check_lora(editor, tmp_path)


def test_a_lora_of_a_larger_model_is_refused_with_a_name_of_each(tmp_path: Path) -> None:
    extra = {f"transformer.transformer_blocks.18.attn.to_q.lora_{m}.weight": torch.zeros(4, 4) for m in "AB"}
    with pytest.raises(ValueError, match=rf"transformer_blocks\.18\.attn.*'transformer\.{re.escape(FIRST)}\.lora_A"):
        check_lora(POCKET, write(tmp_path, tensors() | extra, {}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_numbers_that_are_not_finite_are_refused_by_their_tensors_name(
    tmp_path: Path, bad: float, dtype: torch.dtype
) -> None:
    for name in (f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"):
        weights = {key: tensor.to(dtype) for key, tensor in tensors().items()}
        weights[f"transformer.{name}"].view(-1)[5] = bad
        with pytest.raises(ValueError, match=rf"{re.escape(name)} holds NaN or infinite numbers"):
            read_lora(POCKET.lora, write(tmp_path, weights, {}))


def test_what_float32_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    weights = {name: tensor.double() for name, tensor in tensors().items()}
    weights[f"transformer.{FIRST}.lora_A.weight"][0, 0] = 1e39
    with pytest.raises(ValueError, match="infinite numbers"):
        read_lora(POCKET.lora, write(tmp_path, weights, {}))
    with pytest.raises(ValueError, match="infinite numbers"):
        read_lora(POCKET.lora, write(tmp_path, tensors(), {"lora_alpha": 1e40}))


def pickled(folder: Path) -> None:
    (folder / "pytorch_lora_weights.bin").write_bytes(pickle.dumps({"a": 1}))


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda folder: None, "no LoRA at"),
        (pickled, r"pytorch_lora_weights\.bin is a pickle"),
        (lambda folder: (folder / "lora.pt").write_bytes(b"x"), r"lora\.pt is a pickle"),
        (lambda folder: write(folder, tensors(), {}, "mine.safetensors"), r"mine\.safetensors, give it that name"),
        (lambda folder: write(folder, tensors(), {}, "adapter_model.safetensors"), "PEFT's form"),
        (lambda folder: [write(folder, tensors(), {}, n) for n in ("a.safetensors", "b.safetensors")], "a.* or b"),
        (lambda folder: [write(folder, tensors(), {}, n) for n in (NAME, "old_" + NAME)], "takes any; remove one"),
        (lambda folder: (folder / NAME).write_bytes(b""), "no whole safetensors file"),
        (lambda folder: (folder / NAME).write_text("version https://git-lfs.github.com/spec/v1\n"), "no whole"),
        (lambda folder: (folder / NAME).mkdir(), "no LoRA at"),
        (lambda folder: write(folder, {}, {}), "holds no tensor"),
        (
            lambda folder: (write(folder, tensors(), {}) / NAME).write_bytes((folder / NAME).read_bytes()[:-1]),
            "no whole safetensors file",
        ),
    ],
)
def test_what_is_no_whole_file_under_the_name_is_refused_with_the_way_out(
    tmp_path: Path, fill: Callable[[Path], Any], said: str
) -> None:
    fill(tmp_path)
    with pytest.raises(ValueError, match=said) as refused:
        check_lora(POCKET, tmp_path)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=r"is a file; name the folder|no LoRA at"):
        check_lora(POCKET, tmp_path / NAME if (tmp_path / NAME).is_file() else tmp_path / "gone")


def test_every_command_that_takes_a_lora_refuses_a_foreign_one_before_it_loads_a_model(tmp_path: Path) -> None:
    write(tmp_path, renamed(lambda name: f"base_model.model.{name}"), {})
    config = load_config("pocket", (f"learner.start_from={tmp_path}", f"output.root={tmp_path}"))
    with pytest.raises(ValueError, match=r"base_model\.model"):
        check_training(config)
    image = tmp_path / "image.png"
    image.write_bytes(b"")
    with pytest.raises(ValueError, match=r"base_model\.model"):
        edit_image(config.editor, image, "x", tmp_path, steps=1, seed=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rank=st.sampled_from([1, 2, 4, 8]), power=st.integers(-4, 6), seed=st.integers(0, 9))
def test_an_exported_lora_reads_back_bit_for_bit_where_alpha_over_rank_is_a_power_of_two(
    tmp_path: Path, rank: int, power: int, seed: int
) -> None:
    of_tiny = LoraSettings(rank=rank, alpha=rank * 2.0**power)
    denoiser = tiny_denoiser(TINY.model_copy(update={"lora": of_tiny}))
    torch.manual_seed(seed)
    weights = {name: torch.randn_like(tensor) for name, tensor in lora.state(denoiser.transformer).items()}
    save_lora(denoiser, weights, tmp_path)
    assert lora.digest(read_lora(of_tiny, tmp_path)) == lora.digest(weights)


@pytest.mark.parametrize("alpha", [8.0, 6.0, 0.7])
def test_a_loader_that_reads_no_metadata_applies_an_exported_lora_at_full_strength(
    tmp_path: Path, alpha: float
) -> None:
    of_tiny = LoraSettings(rank=4, alpha=alpha)
    denoiser = tiny_denoiser(TINY.model_copy(update={"lora": of_tiny}))
    torch.manual_seed(5)
    weights = {name: torch.randn_like(tensor) for name, tensor in lora.state(denoiser.transformer).items()}
    file = safetensors.torch.load_file(save_lora(denoiser, weights, tmp_path))
    # As ComfyUI does without an alpha tensor: B A, by no factor.
    assert not any("alpha" in name for name in file)
    modules = {name.removeprefix("transformer.").rsplit(".lora_", 1)[0] for name in file}
    applied = {
        name: file[f"transformer.{name}.lora_B.weight"] @ file[f"transformer.{name}.lora_A.weight"] for name in modules
    }
    assert same(applied, as_we_apply(weights, of_tiny))
    assert same(as_we_apply(read_lora(of_tiny, tmp_path), of_tiny), applied)
    assert file.keys() == for_any_loader(of_tiny, weights).keys()
