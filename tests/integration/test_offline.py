"""The log is enough: to rebuild a group, to learn from again, and to be filled without learning."""

from pathlib import Path

import pytest

from deploy.looking.replay import replay
from rc_grpo.config import ConfigError
from rc_grpo.data.log.logged import read_groups
from tests.integration.conftest import Finished, train_short

pytestmark = pytest.mark.usefixtures("cluster")
LOGGED = ("output.experience=states", "output.policies=all")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Finished:
    return train_short(tmp_path_factory.mktemp("runs"), "logged", *LOGGED)


def test_every_group_of_a_run_is_replayed_bit_for_bit(logged: Finished) -> None:
    for update in (1, 2):
        for group in read_groups(logged.folder / "experience" / f"update-{update:05d}.parquet"):
            assert replay(logged.folder, f"{update}/{group.task_id}").identical


def test_learning_from_the_log_gives_the_weights_of_the_run(logged: Finished, tmp_path: Path) -> None:
    fed = train_short(tmp_path, "fed", f"loop.feed={logged.folder}", "output.experience=scores")
    assert fed.digest == logged.digest
    assert [update["reward/task_mean"] for update in fed.updates] == [
        update["reward/task_mean"] for update in logged.updates
    ]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Finished:
    return train_short(tmp_path_factory.mktemp("runs"), "filled", "loop.learn=false", *LOGGED)


def test_rollouts_alone_fill_a_log_of_which_a_learner_takes_what_is_not_too_old(
    logged: Finished, filled: Finished, tmp_path: Path
) -> None:
    assert filled.summary["final_version"]["number"] == 0
    assert not (filled.folder / "lora").exists()
    assert filled.updates[0]["reward/task_mean"] == logged.updates[0]["reward/task_mean"]
    with pytest.raises(ConfigError, match=r"older than loop\.max_staleness = 0 versions; raise it"):
        train_short(tmp_path, "too-old", f"loop.feed={filled.folder}")


@pytest.mark.slow  # Its witnesses in the gate: a learner fed with a run's own log, and who may not be fed with it.
def test_a_learner_is_fed_with_what_rollouts_alone_filled(filled: Finished, tmp_path: Path) -> None:
    fed = train_short(tmp_path, "fed-later", f"loop.feed={filled.folder}", "loop.max_staleness=1")
    assert fed.summary["final_version"]["number"] == 2
    assert fed.updates[-1]["staleness/max"] == 1


def test_a_run_without_trajectories_in_its_log_cannot_be_learned_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output\.experience=states"):
        train_short(tmp_path, "nothing-there", f"loop.feed={tmp_path}")
