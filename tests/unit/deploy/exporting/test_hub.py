"""What is pushed is read back by its name: against a server that speaks the Hub's API, with the Hub's own client."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from deploy.configs import load_config
from deploy.exporting.base import Base, base_of
from deploy.run.assembly import make_services
from rc_grpo.config import EditorConfig
from rc_grpo.editor import lora
from rc_grpo.editor.export import check_lora, read_lora
from rc_grpo.editor.weights.lora_hub import on_the_hub
from tests.hub import TOKEN, Hub, Repository, serving
from tests.unit.deploy.exporting.runs import SETTINGS, SMALL, weights
from tests.unit.deploy.exporting.test_export import exported

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as served:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield served


def test_a_pushed_lora_is_private_carries_its_card_and_is_read_back_by_name_and_revision(run: Path, hub: Hub) -> None:
    said = exported(run, "--push", "lab/red-skies", "--out", "first")
    repository = hub.repositories["lab/red-skies"]
    first = next(iter(repository.commits))
    assert repository.private
    assert repository.commits[first].keys() == {"README.md", FILE}
    assert 'pipeline.load_lora_weights("lab/red-skies")' in repository.commits[first]["README.md"].decode()
    assert f"lab/red-skies@{first}" in said
    assert repository.messages[0].startswith("red-skies: lora-best, version ")
    exported(run, "--which", "last", "--push", "lab/red-skies", "--out", "second")
    for name, seed in (("lab/red-skies", 2), (f"lab/red-skies@{first}", 1)):
        editor = load_config("pocket", SMALL).editor
        assert lora.digest(check_lora(editor, Path(name))) == lora.digest(weights(seed))
    # And from there into another layout.
    changes = [word for change in SMALL for word in ("--set", change)]
    exported(f"lab/red-skies@{first}", "--config", "pocket", *changes, "--to", "peft", "--out", "again")
    assert (Path("again") / "adapter_model.safetensors").is_file()


def test_a_repository_is_public_when_that_is_asked_for(run: Path, hub: Hub) -> None:
    exported(run, "--push", "lab/open", "--public", "--out", "out")
    assert not hub.repositories["lab/open"].private


def test_the_wrong_token_is_refused_by_the_hub_and_the_folder_stays(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    said = exported(run, "--push", "lab/red-skies", "--out", "out", code=2)
    assert f"lab/red-skies could not be written at {hub.address}" in said
    assert "hf_of_another" not in said
    assert Path("out", FILE).is_file()
    assert hub.repositories == {}


def test_a_hub_that_falls_silent_is_said_in_a_line(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "lab/red-skies could not be written at http://127.0.0.1:9" in exported(
        run, "--push", "lab/red-skies", "--out", "out", code=2
    )


def test_a_base_on_the_hub_has_the_licence_of_its_card(hub: Hub) -> None:
    card = b"---\nlicense: apache-2.0\n---\n"
    hub.repositories["lab/editor"] = Repository(False, {"ab" * 20: {"README.md": card}})
    for model, licence in (("lab/editor", {"license": "apache-2.0"}), ("lab/none", {})):
        assert base_of(EditorConfig(model=model)) == Base(model, model, None, licence)


def test_nothing_but_the_one_safetensors_file_is_fetched(hub: Hub) -> None:
    hub.repositories["lab/pickled"] = Repository(False, {"ab" * 20: {"pytorch_lora_weights.bin": b"x", "a.pt": b"x"}})
    with pytest.raises(ValueError, match=rf"lab/pickled on the Hub has no {FILE}"):
        read_lora(SETTINGS, Path("lab/pickled"))
    assert {request.split()[1].rsplit("/", 1)[1] for request in hub.asked} == {FILE}


def test_what_is_neither_a_folder_nor_on_the_hub_says_both(hub: Hub) -> None:
    with pytest.raises(ValueError, match="no LoRA at lab/none: there is no such folder, and as an id on the Hub"):
        read_lora(SETTINGS, Path("lab/none"))
    hub.repositories["lab/one"] = Repository(False, {"ab" * 20: {}})
    with pytest.raises(ValueError, match="no LoRA at lab/one@v9"):
        read_lora(SETTINGS, Path("lab/one@v9"))


def test_paths_are_no_names_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/mistyped", "/lab/it", "../lab", "lora", "a/b/c", "runs"):
        assert on_the_hub(Path(path)) is None, path
    assert on_the_hub(Path("lab/it")) == ("lab/it", None)
    assert on_the_hub(Path("lab/it@refs/pr/1")) == ("lab/it", "refs/pr/1")


def test_a_training_hands_its_ranks_a_name_on_the_hub_as_it_is_and_a_path_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for told, handed in (("lab/it@v1", Path("lab/it@v1")), ("lora", tmp_path / "lora")):
        _, _, learner = make_services(load_config("pocket", [f"learner.start_from={told}"]))
        assert learner._learner.start_from == handed  # type: ignore[attr-defined]


@pytest.mark.slow  # Its witness is the push above; here the endpoint and the token come from the environment alone.
def test_the_command_alone_pushes_to_the_endpoint_in_the_environment(run: Path, hub: Hub, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "deploy.cli", "export", str(run), "--push", "lab/alone"]
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    assert hub.repositories["lab/alone"].private
    again = [*command[:4], "lab/alone", "--config", "pocket", "--out", "back"]
    again += [word for change in SMALL for word in ("--set", change)]
    subprocess.run(again, env=environment, check=True, timeout=120, capture_output=True)
    assert lora.digest(read_lora(SETTINGS, tmp_path / "back")) == lora.digest(weights(1))
