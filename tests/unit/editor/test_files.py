"""An editor that cannot be loaded is said at once, with the ways out."""

import socket
import time

import pytest
from huggingface_hub import constants

from rc_grpo.config import EditorConfig
from rc_grpo.editor import files
from rc_grpo.editor.files import ModelNotFoundError, pinned, pipeline_class


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub that nobody listens for, and a shell without a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(files, "getproxies", dict)
    return f"http://127.0.0.1:{port}"


def test_a_hub_id_without_a_hub_fails_in_seconds_and_names_both(no_hub: str) -> None:
    started = time.monotonic()
    with pytest.raises(ModelNotFoundError, match=rf"'some/editor' cannot be loaded: .*{no_hub} cannot be reached"):
        pipeline_class(EditorConfig(model="some/editor"))
    assert time.monotonic() - started < files.REACH_DEADLINE_S


def test_a_model_in_the_hub_s_cache_is_found_without_the_hub(
    no_hub: str, monkeypatch: pytest.MonkeyPatch, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "SomePipeline"}')
    monkeypatch.setattr(files, "try_to_load_from_cache", lambda *_, **__: str(index))
    monkeypatch.setattr(files, "hf_hub_download", lambda *_, **__: str(index))
    assert pipeline_class(EditorConfig(model="some/editor")) == "SomePipeline"
    assert "HF_HUB_OFFLINE=1" in caplog.text


def test_a_folder_asks_no_hub(tmp_path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "SomePipeline"}')
    assert pipeline_class(EditorConfig(model=str(tmp_path))) == "SomePipeline"


def test_a_revision_follows_a_hub_id_and_never_a_folder(tmp_path) -> None:
    folder = tmp_path / "a@b"
    folder.mkdir()
    assert pinned(str(folder)) == (str(folder), None)
    assert pinned("org/name") == ("org/name", None)
    assert pinned("org/name@refs/pr/1") == ("org/name", "refs/pr/1")
