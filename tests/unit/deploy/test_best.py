"""``lora-best/`` holds the version that did best on held-out tasks, whatever came before and after it."""

import asyncio
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from deploy.records.best import BestLora, name_of_lora
from rc_grpo.evaluation.gains import HeldOut
from rc_grpo.messages import PolicyVersion


class Learner:
    """Exports a file that says which version it has."""

    def __init__(self, version: PolicyVersion, *, dies: bool = False) -> None:
        self.version = version
        self.dies = dies

    async def export(self, folder: Path, *, average: bool = True) -> str:
        assert not average
        folder.mkdir()
        (folder / "weights").write_text(f"v{self.version.number}")
        if self.dies:
            raise RuntimeError("killed")
        return "digest"


def evaluated(run: Path, number: int, reward: float, *, dies: bool = False, watcher: float | None = None) -> None:
    version = PolicyVersion(number, "d", 1, is_identity=number == 0)
    rewards = {} if watcher is None else {"watcher": np.array([watcher, watcher])}
    heldout = HeldOut(version, np.array([reward, reward]), np.zeros(2), {}, rewards)
    best = BestLora(run, judge=None if watcher is None else "watcher")
    asyncio.run(best.consider(10 * number, heldout, Learner(version, dies=dies)))  # type: ignore[arg-type]


def kept(run: Path) -> str | None:
    path = run / "lora-best" / "weights"
    return path.read_text() if path.exists() else None


def test_the_best_and_the_last_of_a_run_have_names_of_their_own(tmp_path: Path) -> None:
    run = tmp_path / "kontext"
    found = [name_of_lora(run / "lora"), name_of_lora(run / "lora-best"), name_of_lora(tmp_path / "from-a-friend")]
    assert found == ["kontext", "kontext-best", "from-a-friend"]


def test_the_best_is_kept_and_the_last_is_not_it(tmp_path: Path) -> None:
    for number, reward in enumerate([0.9, 0.5, 0.7, 0.6, 0.7]):
        evaluated(tmp_path, number, reward)
    assert kept(tmp_path) == "v2"
    told = json.loads((tmp_path / "lora-best" / "held_out.json").read_text())
    assert (told["update"], told["reward"], told["version"]["number"]) == (20, 0.7, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["lora-best"]


def test_the_best_by_a_judge_that_looks_on_is_not_the_one_that_pleases_the_others_most(tmp_path: Path) -> None:
    for number, (reward, watcher) in enumerate([(0.5, 0.5), (0.6, 0.6), (0.9, 0.3)]):
        evaluated(tmp_path, number, reward, watcher=watcher)
    assert kept(tmp_path) == "v1"


@pytest.mark.parametrize(("number", "reward"), [(0, 0.9), (1, float("nan"))])
def test_an_untrained_version_and_one_without_a_score_are_none_to_keep(
    tmp_path: Path, number: int, reward: float
) -> None:
    with warnings.catch_warnings(action="ignore"):
        evaluated(tmp_path, number, reward)
    assert BestLora(tmp_path).measured is None


def test_an_export_that_is_cut_off_leaves_the_best_before_it(tmp_path: Path) -> None:
    evaluated(tmp_path, 1, 0.5)
    with pytest.raises(RuntimeError, match="killed"):
        evaluated(tmp_path, 2, 0.6, dies=True)
    assert kept(tmp_path) == "v1"
    evaluated(tmp_path, 2, 0.6)
    assert kept(tmp_path) == "v2"


def test_a_kill_between_the_two_moves_loses_nothing(tmp_path: Path) -> None:
    evaluated(tmp_path, 1, 0.5)
    (tmp_path / "lora-best").rename(tmp_path / ".lora-best.before")
    measured = BestLora(tmp_path).measured
    assert measured is not None
    assert measured["reward"] == 0.5
    assert kept(tmp_path) == "v1"
