"""A folder as the hub fills it is read by a pattern, and never two splits as one data set."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.formats.parquet_files import parquet_files

from .test_presets import MAGICBRUSH, parquet

SHARDS = (
    "data/dev-00000-of-00001-0f3a.parquet",
    "data/train-00000-of-00002-11bc.parquet",
    "data/train-00001-of-00002-22cd.parquet",
)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name in SHARDS:
        row = MAGICBRUSH[0] | {"instruction": f"Do {name}"}
        parquet(tmp_path, [row], MAGICBRUSH[1], name)
    return tmp_path


def test_a_pattern_is_the_files_of_a_split(hub: Path) -> None:
    tasks = load_tasks(TaskSource(format="parquet", path=hub / "data" / "train-*.parquet"))
    assert [task.instruction for task in tasks] == [f"Do {name}" for name in SHARDS[1:]]
    assert [task.task_id for task in tasks] == [f"{Path(name).stem}-000000" for name in SHARDS[1:]]


def test_a_folder_with_several_splits_is_refused_with_the_pattern_of_one(hub: Path) -> None:
    with pytest.raises(DataError, match=r"holds the splits dev, train; name the files of one, such as (\S+)") as raised:
        load_tasks(TaskSource(format="parquet", path=hub))
    assert len(parquet_files(Path(str(raised.value).split()[-1]))[1]) in (1, 2)
    (hub / SHARDS[0]).unlink()
    assert len(load_tasks(TaskSource(format="parquet", path=hub))) == 2


def test_a_pattern_of_nothing_is_said(hub: Path) -> None:
    with pytest.raises(DataError, match=r"no parquet file at .*test-\*\.parquet"):
        load_tasks(TaskSource(format="parquet", path=hub / "data" / "test-*.parquet"))


def test_masks_are_made_of_a_pattern(hub: Path) -> None:
    given = ["masks", str(hub / "data" / "train-*.parquet"), "--by", "difference", "--out", str(hub / "masked")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert len(load_tasks(TaskSource(format="parquet", path=hub / "masked"))) == 2
