"""A run may be given another end: more updates, a finished run too, and never fewer than it has made."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy import train
from deploy.batches.ledger import Ledger
from deploy.cli import app
from deploy.configs import load_config
from deploy.records.folder import RunFolder
from deploy.records.provenance import run_provenance
from deploy.records.resuming import check_plan, is_over, is_the_same_run, resumed_config
from rc_grpo.config import ConfigError, RunConfig, dump

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes what a run of four planned updates leaves: checkpoints, and a summary if it has finished."""

    def run(*checkpoints: int, finished: bool = False) -> Path:
        config = of(tmp_path, 4)
        folder = tmp_path / "run"
        for update in checkpoints:
            (folder / "checkpoints" / f"update-{update:05d}").mkdir(parents=True)
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(dump(config))
        if finished:
            (folder / "summary.json").write_text(json.dumps({"updates": 4, "training_minutes": 1.0}))
        return folder

    return run


def of(root: Path, updates: int, *overrides: str) -> RunConfig:
    return load_config("pocket", ("name=run", f"output.root={root}", f"loop.updates={updates}", *overrides))


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("updates", [5, 40])
def test_more_updates_are_planned(make: Make, finished: bool, updates: int) -> None:
    run = make(0, 2, 4, finished=finished)
    assert resumed_config(run, (f"loop.updates={updates}",)).loop.updates == updates
    assert is_the_same_run(of(run.parent, updates))
    assert not is_over(of(run.parent, updates))
    check_plan(of(run.parent, updates))


@pytest.mark.parametrize("checkpoints", [(0, 2), (2,), (0, 1, 2)])
@pytest.mark.parametrize("updates", [1, 0])
def test_fewer_updates_than_are_made_are_refused_with_their_number(
    make: Make, checkpoints: tuple[int, ...], updates: int
) -> None:
    run = make(*checkpoints)
    said = "has made 2 updates, and loop.updates = 1 would be fewer; plan at least 2" if updates else "loop.updates"
    with pytest.raises(ConfigError, match=said):
        resumed_config(run, (f"loop.updates={updates}",))


def test_a_run_may_end_where_it_is(make: Make) -> None:
    assert resumed_config(make(0, 2), ("loop.updates=2",)).loop.updates == 2


@pytest.mark.parametrize("overrides", [(), ("loop.updates=4",)])
def test_a_finished_run_without_more_to_do_says_how_to_give_it_more(make: Make, overrides: tuple[str, ...]) -> None:
    run = make(0, 4, finished=True)
    with pytest.raises(ConfigError, match=r"is finished after 4 updates.*--set loop\.updates=N.*learner\.start_from"):
        resumed_config(run, overrides)
    assert is_over(of(run.parent, 4))


def test_a_finished_run_of_which_fewer_are_planned_is_refused_with_the_number(make: Make) -> None:
    run = make(0, 4, finished=True)
    with pytest.raises(ConfigError, match="has made 4 updates"):
        resumed_config(run, ("loop.updates=3",))
    with pytest.raises(ConfigError, match="has made 4 updates"):
        check_plan(of(run.parent, 3))


def test_a_finished_run_without_checkpoints_does_not_begin_anew_in_its_own_folder(make: Make) -> None:
    with pytest.raises(ConfigError, match="its checkpoints are gone"):
        resumed_config(make(finished=True), ("loop.updates=9",))


@pytest.mark.parametrize(
    "override", ["learner.learning_rate=3.0e-3", "learner.schedule=linear", "loop.max_staleness=1"]
)
def test_with_more_updates_no_other_key_may_change(make: Make, override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        resumed_config(make(0, 2), ("loop.updates=9", override))


def test_checkpoints_beyond_five_digits_are_newer(make: Make) -> None:
    run = make(99_999, 100_000)
    with pytest.raises(ConfigError, match="has made 100000 updates"):
        resumed_config(run, ("loop.updates=99999",))


def test_the_start_of_a_finished_run_sets_its_summary_aside_and_records_the_new_plan(make: Make) -> None:
    run = make(0, 4, finished=True)
    folder = RunFolder(run)
    for updates in (8, 9):
        config = of(run.parent, updates)
        folder.describe(config, run_provenance(config, ()))
    assert not folder.finished
    assert json.loads((run / "set-aside" / "000-after-update-00004" / "summary.json").read_text()) == {
        "updates": 4,
        "training_minutes": 1.0,
    }
    record = json.loads((run / "environment.json").read_text())
    assert [record["planned_updates"], *(start["planned_updates"] for start in record["earlier_starts"])] == [9, 8]
    assert resumed_config(run).loop.updates == 9


@pytest.mark.parametrize(("tasks", "groups"), [(5, 3), (7, 7), (2, 4)])
def test_the_groups_that_were_planned_stay_what_they_were(tasks: int, groups: int) -> None:
    short, longer = (Ledger(tasks, updates, groups, 0, seed=3) for updates in (4, 9))
    planned = short.dispatch(4)
    assert longer.dispatch(9)[: len(planned)] == planned


def test_a_job_that_is_submitted_again_with_more_updates_goes_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, started = make(0, 4, finished=True), list[tuple[int, bool]]()
    monkeypatch.setattr(train, "run_training", lambda config, resume: started.append((config.loop.updates, resume)))
    settings = [f"output.root={run.parent}", "name=run"]
    train.main("pocket", [*settings, "loop.updates=4"])
    assert started == []
    train.main("pocket", [*settings, "loop.updates=6"])
    assert started == [(6, True)]
    with pytest.raises(SystemExit):
        train.main("pocket", [*settings, "loop.updates=3"])
    assert started == [(6, True)]


def test_the_command_says_the_number_in_one_line(make: Make) -> None:
    run = make(0, 2)
    result = CliRunner().invoke(app, ["train", "--resume", str(run), "--set", "loop.updates=1"])
    assert result.exit_code == 2
    assert result.stderr == (f"error: {run} has made 2 updates, and loop.updates = 1 would be fewer; plan at least 2\n")
