"""An export is whole and says what it is, or nothing is written and the way out is said."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoModel
from safetensors.torch import load_file
from typer.testing import CliRunner

from deploy.cli import app
from deploy.exporting.base import Base, base_of
from deploy.exporting.figures import figures_of
from deploy.exporting.source import find_source
from deploy.exporting.writing import check_layout
from rc_grpo.config import ConfigError, EditorConfig
from rc_grpo.editor import lora
from rc_grpo.editor.export import read_lora
from rc_grpo.editor.registry import find
from rc_grpo.kept import DamagedFileError
from rc_grpo.pocket import MODEL_PATH
from tests.unit.deploy.exporting.runs import SETTINGS, SMALL, weights

runner = CliRunner()


def exported(*arguments: str | Path, code: int = 0) -> str:
    result = runner.invoke(app, ["export", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output.replace("\n", "")


@pytest.mark.parametrize(
    ("which", "seed"), [((), 1), (("--which", "best"), 1), (("--which", "last"), 2)], ids=["unsaid", "best", "last"]
)
def test_the_best_lora_is_exported_unless_another_is_named(
    run: Path, tmp_path: Path, which: tuple[str, ...], seed: int
) -> None:
    exported(run, *which, "--out", tmp_path / "out")
    assert lora.digest(read_lora(SETTINGS, tmp_path / "out")) == lora.digest(weights(seed))


@pytest.mark.parametrize("named", ["lora", "lora-best"])
def test_the_folder_of_a_runs_lora_is_as_good_a_name(run: Path, tmp_path: Path, named: str) -> None:
    exported(run / named, "--to", "kohya", "--out", tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "red-skies.safetensors")
    assert {name.split(".")[0].rsplit("_", 1)[0] for name in tensors} == {
        f"lora_unet_double_blocks_{block}_txt_attn" for block in range(2)
    }


def test_a_lora_in_no_run_is_exported_for_the_editor_that_is_named(run: Path, tmp_path: Path) -> None:
    alone = (run / "lora").rename(tmp_path / "mine")
    said = exported(alone, code=2)
    assert "say whose editor it is for with --config" in said
    changes = [word for change in SMALL for word in ("--set", change)]
    exported(alone, "--config", "pocket", *changes, "--to", "peft", "--out", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**No figures**: these weights were exported from no run's folder" in card


def test_merged_is_the_base_with_the_products_added_and_nothing_else_changed(run: Path, tmp_path: Path) -> None:
    exported(run, "--merged", "--out", tmp_path / "out")
    merged = AutoModel.from_pretrained(str(tmp_path / "out"), subfolder="transformer").state_dict()
    base = AutoModel.from_pretrained(str(MODEL_PATH), subfolder="transformer").state_dict()
    assert merged.keys() == base.keys()
    changed, factors = set(), weights(1)
    for name, tensor in merged.items():
        if not tensor.equal(base[name]):
            changed.add(name.removesuffix(".weight"))
            a, b = (factors[name.replace(".weight", f".lora_{matrix}.weight")] for matrix in "AB")
            torch.testing.assert_close(tensor, base[name] + 2 * b @ a)
    assert changed == {name.rsplit(".lora_", 1)[0] for name in factors}
    assert 'subfolder="transformer"' in (tmp_path / "out" / "README.md").read_text()


def test_the_card_says_figures_data_settings_version_licence_and_how_to_load(run: Path, tmp_path: Path) -> None:
    exported(run, "--out", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "diffusers"
    assert lora.digest(weights(1)) in text
    row = re.search(r"\| held-out reward \| (\S+) \| (\S+) \| \+(\S+) ± (\S+) \|", text)
    assert row is not None
    # The run's curve rises by 0.004 an update; its 40 tasks scatter by 0.01 at each evaluation.
    assert float(row[3]) == pytest.approx(0.024, abs=0.008)
    assert float(row[4]) == pytest.approx(0.014 / 40**0.5, rel=0.4)
    assert "by the base model and after update 6" in text
    assert "it may be chance" not in text
    assert "Data, train: 1 tasks read from files" in text
    assert f"fingerprint `{'cd' * 32}`" in text
    assert "commit `0123456789ab-dirty`" in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["editor"]["lora"]["rank"] == 2
    assert str(tmp_path) not in text.replace(str(tmp_path / "out"), "")
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 5
    compile(code, "card", "exec")


def test_figures_of_other_weights_are_not_claimed(run: Path, tmp_path: Path) -> None:
    exported(run, "--which", "last", "--out", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "**No figures**: none of the run's held-out evaluations is of these weights" in text
    assert "| held-out reward" not in text


def test_a_change_that_chance_explains_is_said_to_be_one(run: Path, tmp_path: Path) -> None:
    first, measured = (run / "evaluations" / f"update-{update:05d}.json" for update in (0, 6))
    before, after = (json.loads(path.read_text()) for path in (first, measured))
    after["reward"] = [reward + (-1) ** place for place, reward in enumerate(before["reward"])]
    measured.write_text(json.dumps(after))
    exported(run, "--out", tmp_path / "out")
    assert "it may be chance" in (tmp_path / "out" / "README.md").read_text()


def test_an_evaluation_that_is_damaged_is_named(run: Path, tmp_path: Path) -> None:
    (run / "evaluations" / "update-00006.json").write_text('{"tasks": ["a"]}')
    with pytest.raises(DamagedFileError, match=r"update-00006\.json is damaged"):
        figures_of(find_source(run, None, None, ()))
    assert "update-00006.json is damaged" in exported(run, "--out", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_a_base_in_a_folder_is_named_without_its_place_and_under_its_own_cards_licence(tmp_path: Path) -> None:
    folder = tmp_path / "secret" / "a-model"
    folder.mkdir(parents=True)
    editor = EditorConfig(model=str(folder))
    assert base_of(editor) == Base("a-model", None, None, {})
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: for-a-test\nbase: x\n---\n# A model\n")
    assert base_of(editor) == Base("a-model", None, None, {"license": "other", "license_name": "for-a-test"})
    assert base_of(editor).licence_in_words == "for-a-test"
    (folder / "README.md").write_text("---\n- [\n---\n")
    assert base_of(editor).licence_in_words == "not known here"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{run}", "--merged", "--to", "kohya"), "leave --to kohya out"),
        (("{run}", "--public"), "add --push ORG/NAME"),
        (("{run}", "--out", "{run}"), "nothing is overwritten"),
        (("{run}", "--config", "pocket"), "leave --config out"),
        (("{run}/lora", "--which", "last"), "leave it out"),
        (("{run}/nothing",), "there is no folder"),
        (("{run}", "--push", "me"), "name it as ORG/NAME"),
        (("{run}", "--push", "a b/c"), "--push 'a b/c'"),
        (("{run}", "--push", "me/it"), "needs HF_TOKEN"),
        (("{run}", "--set", "editor.lora.rank=3"), "set editor.lora.rank"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    run: Path, tmp_path: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert said in exported(*(argument.format(run=run) for argument in arguments), code=2)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_without_a_lora_says_when_there_is_one(run: Path, tmp_path: Path) -> None:
    (run / "lora").rename(tmp_path / "away")
    assert "has no lora; it has lora-best: --which best" in exported(run, "--which", "last", code=2)
    (run / "lora-best").rename(tmp_path / "far-away")
    assert "has no LoRA yet" in exported(run, code=2)


def test_a_family_without_first_names_is_refused_with_the_layouts_that_it_has(run: Path) -> None:
    known = find(find_source(run, None, None, ()).config.editor)

    class Nameless:
        name = "sketch"

        def __getattr__(self, name: str) -> object:
            if name == "first_names":
                raise AttributeError(name)
            return getattr(known, name)

    family: object = Nameless()
    for to in ("diffusers", "peft"):
        check_layout(family, to)  # type: ignore[arg-type]
    for to in ("kohya", "comfyui"):
        with pytest.raises(ConfigError, match=rf"family sketch .* by which {to} .* diffusers or peft, or --merged"):
            check_layout(family, to)  # type: ignore[arg-type]
