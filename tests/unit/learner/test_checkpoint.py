"""What is asked of DeepSpeed for a checkpoint, and what comes back."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from learner import rank
from learner.checkpoint import load_engine, save_engine
from learner.errors import UnsharedFolderError
from learner.rank import LearnerRank


class Engine:
    """DeepSpeed's engine as far as checkpoints go: it notes what it is asked, and gives its client's state back."""

    def __init__(self) -> None:
        self.saved: dict[str, Any] = {}
        self.loaded: dict[str, Any] = {}

    def save_checkpoint(self, folder: str, **options: Any) -> None:
        self.saved = {"folder": folder, **options}
        (Path(folder) / options["tag"]).mkdir()

    def load_checkpoint(self, folder: str, **options: Any) -> tuple[str, dict[str, Any]]:
        self.loaded = {"folder": folder, **options}
        return folder, self.saved["client_state"]


def test_a_checkpoint_is_the_trained_part_alone_and_does_not_call_itself_the_latest(tmp_path: Path) -> None:
    engine = Engine()
    save_engine(engine, tmp_path, "update-7", updates=7, ema=None)
    assert (engine.saved["folder"], engine.saved["tag"]) == (str(tmp_path), "update-7")
    assert engine.saved["exclude_frozen_parameters"] is True
    assert engine.saved["save_latest"] is False


def test_updates_and_moving_average_come_back_from_the_checkpoint_that_was_named(tmp_path: Path) -> None:
    engine, ema = Engine(), {"a": torch.tensor([1.0, 2.0])}
    save_engine(engine, tmp_path, "update-7", updates=7, ema=ema)
    assert load_engine(engine, tmp_path, "update-7") == (7, ema)
    assert engine.loaded == {"folder": str(tmp_path), "tag": "update-7", "load_module_strict": False}
    save_engine(engine, tmp_path, "update-8", updates=8, ema=None)
    assert load_engine(engine, tmp_path, "update-8") == (8, None)


def test_a_checkpoint_that_is_not_there_is_named_before_the_engine_is_asked(tmp_path: Path) -> None:
    engine = Engine()
    (tmp_path / "update-9").touch()
    for tag in ("update-8", "update-9"):
        with pytest.raises(FileNotFoundError, match=tag):
            load_engine(engine, tmp_path, tag)
    assert not engine.loaded


def test_a_rank_that_does_not_see_what_the_driver_made_says_so_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "SHOWN_WITHIN_S", 0.3)
    learner = object.__new__(LearnerRank)
    learner.rank = 1
    with pytest.raises(UnsharedFolderError, match=r"learner-1 on \S+ does not see .*late.*put output.root on storage"):
        learner.require(tmp_path / "late")
    monkeypatch.setattr(rank, "SHOWN_WITHIN_S", 30.0)
    showing = threading.Timer(0.3, (tmp_path / "late").mkdir)
    showing.start()
    learner.require(tmp_path / "late")
