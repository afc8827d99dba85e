import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn, get_args

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from rc_grpo.editor.weights.on_disk import WEIGHTS_INDEX
from reward_service.folders.adapter import ADAPTER_WEIGHTS, AdapterError
from reward_service.folders.judge_folder import (
    MANIFEST,
    JudgeFolderError,
    check_judge_folder,
    read_manifest,
)
from reward_service.folders.merging import MergeError, MergeReport, merge_judge
from reward_service.folders.parity import ParityError, compare
from reward_service.folders.whole_folder import FolderBusyError, locked
from reward_service.prompts import Family
from tests.unit.reward.tiny_judges import make_adapter, make_base

SCALE = 8 / 4
"""lora_alpha / r of the tiny adapters."""


class Halves(NamedTuple):
    base: Path
    adapter: Path

    def merge(self, out: Path, **options: object) -> MergeReport:
        return merge_judge(str(self.base), str(self.adapter), out, **options)  # type: ignore[arg-type]

    def with_adapter(self, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> "Halves":
        """The same, with an adapter whose tensors were changed."""
        shutil.copytree(self.adapter, folder)
        save_file(change(load_file(folder / ADAPTER_WEIGHTS)), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        return Halves(self.base, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Halves]:
    """Base and adapter of a family, the base of Qwen3-VL in several files."""

    @cache
    def make(family: Family) -> Halves:
        folder = tmp_path_factory.mktemp(family)
        base = make_base(folder / "base", family, shard="150KB" if family == "qwen3_vl" else "5GB")
        return Halves(base, make_adapter(folder / "adapter", base))

    return make


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Halves], MergeReport]:
    """What merging them into a new folder, in the type of the base, said."""
    return cache(lambda halves: halves.merge(tmp_path_factory.mktemp("merged") / "judge"))


@pytest.fixture(scope="module", params=get_args(Family))
def halves(request: pytest.FixtureRequest, made: Callable[[Family], Halves]) -> Halves:
    return made(request.param)


@pytest.fixture(scope="module")
def qwen25(made: Callable[[Family], Halves]) -> Halves:
    return made("qwen2_5_vl")


@pytest.fixture(scope="module")
def pristine(qwen25: Halves, merged: Callable[[Halves], MergeReport]) -> Path:
    return merged(qwen25).out


@pytest.fixture
def judge(pristine: Path, tmp_path: Path) -> Path:
    """A merged judge that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "judge"))


def weights(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor for file in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(file).items()
    }


def filed_as(module: str, names: set[str]) -> str:
    """Name of a module's weight in a base's files, which keep Qwen2.5-VL's old layout."""
    new = f"{module}.weight"
    return new if new in names else new.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def test_every_weight_is_base_plus_adapter_rounded_once_and_the_rest_is_untouched(
    halves: Halves, merged: Callable[[Halves], MergeReport]
) -> None:
    found, base = weights(merged(halves).out), weights(halves.base)
    adapter = load_file(halves.adapter / ADAPTER_WEIGHTS)
    assert found.keys() == base.keys()
    touched = set()
    for name, low in adapter.items():
        if ".lora_A." in name:
            high = adapter[name.replace(".lora_A.", ".lora_B.")]
            weight = filed_as(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"), set(base))
            expected = (base[weight].float() + SCALE * (high.float() @ low.float())).to(torch.bfloat16)
            # The product's order of summation is the library's; a bfloat16 that lies between two may fall either way.
            assert (found[weight] != expected).float().mean() < 1e-3, weight
            torch.testing.assert_close(found[weight], expected)
            touched.add(weight)
    assert any("visual" in name and "merger" not in name for name in touched)
    assert any("merger" in name for name in touched)
    assert any("self_attn" in name for name in touched)
    for name in base.keys() - touched:
        assert torch.equal(found[name], base[name]), name


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_merged_judges_answer_like_base_and_adapter(
    halves: Halves, merged: Callable[[Halves], MergeReport], dtype: str, bound: float, tmp_path: Path
) -> None:
    report = merged(halves) if dtype == "bfloat16" else halves.merge(tmp_path / "out", dtype=dtype)
    parity = report.manifest.parity
    assert parity.error <= bound * parity.effect
    assert parity.effect > 0.1
    assert parity.top1_agreement >= 0.9 > parity.top1_agreement_base
    assert parity.positions > 200
    assert {str(tensor.dtype) for tensor in weights(report.out).values()} == {f"torch.{dtype}"}
    assert json.loads((report.out / "config.json").read_text())["dtype"] == dtype


def test_the_folder_serves_alone(qwen25: Halves, pristine: Path) -> None:
    for path in qwen25.base.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            assert (pristine / path.name).read_bytes() == path.read_bytes()
    assert json.loads((pristine / "config.json").read_text()) == json.loads((qwen25.base / "config.json").read_text())
    assert {path.stat().st_mode & 0o444 for path in pristine.iterdir()} == {0o444}
    manifest = read_manifest(pristine)
    assert manifest is not None
    assert manifest.files.keys() == {path.name for path in pristine.iterdir()} - {MANIFEST}
    assert manifest.tensors == len(load_file(qwen25.adapter / ADAPTER_WEIGHTS))
    check_judge_folder(pristine, verify_digests=True)


def test_a_second_merge_leaves_the_first_alone(qwen25: Halves, judge: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in judge.iterdir()}
    report = qwen25.merge(judge)
    assert report.already_merged
    assert {path.name: path.stat().st_mtime_ns for path in judge.iterdir()} == before


def test_a_folder_of_other_halves_is_refused(qwen25: Halves, judge: Path, tmp_path: Path) -> None:
    other = Halves(qwen25.base, make_adapter(tmp_path / "other", qwen25.base, seed=2))
    with pytest.raises(MergeError, match=r"another adapter.*adapter_model\.safetensors.*name another folder"):
        other.merge(judge)
    with pytest.raises(MergeError, match="bfloat16, not in float32"):
        qwen25.merge(judge, dtype="float32")


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "cheap"),
    [
        ("model.safetensors", cut_off, True),
        ("model.safetensors", Path.unlink, True),
        ("model.safetensors", flip_a_bit, False),
        ("tokenizer.json", cut_off, True),
        ("tokenizer.json", Path.unlink, True),
        ("chat_template.jinja", flip_a_bit, False),
        ("config.json", Path.unlink, True),
        (MANIFEST, cut_off, False),
        (MANIFEST, Path.unlink, False),
    ],
)
def test_a_damaged_folder_is_refused_by_name(
    qwen25: Halves, judge: Path, name: str, damage: Callable[[Path], None], cheap: bool
) -> None:
    damage(judge / name)
    left = {path.name: path.stat().st_mtime_ns for path in judge.iterdir()}
    with pytest.raises(JudgeFolderError, match=name):
        qwen25.merge(judge)
    assert {path.name: path.stat().st_mtime_ns for path in judge.iterdir()} == left
    if cheap:
        with pytest.raises(JudgeFolderError, match=rf"{name}.*(remove|make)"):
            check_judge_folder(judge)


def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(".qkv.", ".to_qkv."): tensor for name, tensor in tensors.items()}


def keep_language_only(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "visual" not in name}


def widen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([tensor, tensor], -1) if ".lora_A." in name else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rename, r"4 of the \d+ tensors .* bind to nothing .*to_qkv\.lora_A"),
        (keep_language_only, r"only in part.* lack \(first: .*visual"),
        (widen, "does not fit the base.*size mismatch"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    qwen25: Halves, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=rf"(?s){says}"):
        qwen25.with_adapter(tmp_path / "adapter", change).merge(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_that_changes_nothing_is_refused(qwen25: Halves, tmp_path: Path) -> None:
    def untrained(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor * (".lora_A." in name) for name, tensor in tensors.items()}

    with pytest.raises(ParityError, match="changes no logit"):
        qwen25.with_adapter(tmp_path / "adapter", untrained).merge(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_with_the_module_names_of_its_time_is_the_same_adapter(
    qwen25: Halves, pristine: Path, tmp_path: Path
) -> None:
    def old(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {name: name.replace("model.model.language_model.", "model.model.") for name in tensors}
        return {names[name].replace("model.model.visual.", "model.visual."): tensor for name, tensor in tensors.items()}

    older = qwen25.with_adapter(tmp_path / "adapter", old)
    assert not load_file(older.adapter / ADAPTER_WEIGHTS).keys() & load_file(qwen25.adapter / ADAPTER_WEIGHTS).keys()
    same = weights(older.merge(tmp_path / "out").out)
    assert all(torch.equal(same[name], tensor) for name, tensor in weights(pristine).items())


def test_a_bound_that_does_not_hold_leaves_no_folder(qwen25: Halves, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"does not answer like base and adapter.*--dtype float32"):
        qwen25.merge(tmp_path / "out", tolerance=1e-6)
    assert not any(tmp_path.iterdir())


def test_parity_is_relative_to_what_the_adapter_does_and_nan_is_not_parity() -> None:
    base, unmerged = torch.zeros(3, 5), torch.eye(3, 5)
    assert compare(unmerged, base, unmerged + 1e-3, 0.01).top1_agreement == 1.0
    for merged in (base, unmerged + 0.02, unmerged * torch.nan):
        with pytest.raises(ParityError):
            compare(unmerged, base, merged, 0.01)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_merge_leaves_nothing_behind(
    qwen25: Halves, interruption: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> NoReturn:
        assert any(tmp_path.rglob("model.safetensors")), "weights are being written when it happens"
        raise interruption("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("reward_service.folders.merging.shutil.copyfile", interrupted)
        with pytest.raises(interruption):
            qwen25.merge(tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_what_a_killed_merge_left_is_removed_by_the_next(qwen25: Halves, tmp_path: Path) -> None:
    left = tmp_path / ".out.by-elsewhere-17"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    assert not qwen25.merge(tmp_path / "out").already_merged
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_who_waits_in_vain_is_told_for_whom(tmp_path: Path) -> None:
    (tmp_path / ".out.by-elsewhere-17").mkdir()
    busy = pytest.raises(FolderBusyError, match=r"process elsewhere-17.*out\.lock")
    with FileLock(tmp_path / "out.lock"), busy, locked(tmp_path / "out", timeout=0.1):
        pass


def test_two_merges_at_once_make_one(qwen25: Halves, tmp_path: Path) -> None:
    # Forked: each has what this process has imported, and the lock of its own.
    with multiprocessing.get_context("fork").Pool(2) as pool:
        reports = pool.map_async(qwen25.merge, [tmp_path / "out"] * 2, chunksize=1).get(60)
    assert sorted(report.already_merged for report in reports) == [False, True]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    check_judge_folder(tmp_path / "out", verify_digests=True)


@pytest.fixture
def shards(made: Callable[[Family], Halves], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made("qwen3_vl").base, tmp_path / "shards"))


def test_a_model_from_elsewhere_is_whole_without_a_manifest(shards: Path) -> None:
    assert len(list(shards.glob("*.safetensors"))) > 2
    check_judge_folder(shards)


def test_every_shard_of_the_index_is_looked_at(shards: Path) -> None:
    last = max(shards.glob("*.safetensors"))
    cut_off(last)
    with pytest.raises(JudgeFolderError, match=rf"{last.name} has \d+ bytes, its header says \d+"):
        check_judge_folder(shards)
    last.write_bytes(b"")
    with pytest.raises(JudgeFolderError, match=rf"{last.name} is not safetensors, or is cut off"):
        check_judge_folder(shards)
    last.unlink()
    with pytest.raises(JudgeFolderError, match=f"{last.name} is missing"):
        check_judge_folder(shards)
    (shards / WEIGHTS_INDEX).write_text("{}")
    with pytest.raises(JudgeFolderError, match=WEIGHTS_INDEX):
        check_judge_folder(shards)
    (shards / WEIGHTS_INDEX).unlink()
    with pytest.raises(JudgeFolderError, match=r"no model\.safetensors"):
        check_judge_folder(shards)


def test_a_half_written_base_is_refused(shards: Path, qwen25: Halves, tmp_path: Path) -> None:
    cut_off(min(shards.glob("*.safetensors")))
    with pytest.raises(MergeError, match=r"base .* cannot be used: .*its header says"):
        Halves(shards, qwen25.adapter).merge(tmp_path / "out")


def test_a_base_that_lacks_a_weight_is_refused_rather_than_filled_at_random(qwen25: Halves, tmp_path: Path) -> None:
    base = Path(shutil.copytree(qwen25.base, tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if "norm.weight" not in name}, base / "model.safetensors")
    with pytest.raises(MergeError, match=r"lacks \d+ of its weights \(first: .*norm\.weight"):
        Halves(base, qwen25.adapter).merge(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_alone_and_no_folder_at_all_get_the_way_out(qwen25: Halves, tmp_path: Path) -> None:
    with pytest.raises(JudgeFolderError, match=r"merge it first: rc-grpo merge-judge BASE .* OUT"):
        check_judge_folder(qwen25.adapter)
    with pytest.raises(JudgeFolderError, match="is not a folder; make it: rc-grpo merge-judge"):
        check_judge_folder(tmp_path / "nowhere")


def test_halves_that_cannot_be_had_are_said_before_anything_is_loaded(qwen25: Halves, tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="no/such is neither a folder here nor to be had"):
        merge_judge("no/such", str(qwen25.adapter), tmp_path / "out")
    with pytest.raises(MergeError, match="revision 'main' means nothing"):
        qwen25.merge(tmp_path / "out", revision="main")
    with pytest.raises(AdapterError, match="is not a PEFT adapter"):
        Halves(qwen25.base, qwen25.base).merge(tmp_path / "out")
    assert not any(tmp_path.iterdir())
