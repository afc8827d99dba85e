from rc_grpo.config import TaskSource
from rc_grpo.data import load_tasks
from rc_grpo.pocket.world import PocketWorld

from .conftest import SOURCE, source_of


def test_a_task_is_found_by_its_id_without_reading_another(lines):
    path = lines({}, {"instruction": " "}, {"task_id": "a/b", "source": "other.png"}, files={"other.png": SOURCE})
    tasks = load_tasks(source_of(path, on_bad_task="skip"))
    (path.parent / "source.png").unlink()
    assert tasks.find("a/b").source == SOURCE
    assert tasks.find("t1") is None, "it was refused"
    assert tasks.find("t9") is None


def test_a_slice_finds_what_is_in_it(lines):
    tasks = load_tasks(source_of(lines({}, {}, {})))[1:]
    assert tasks.find("t2").task_id == "t2"
    assert tasks.find("t0") is None
    assert tasks[2:].find("t2") is None


def test_a_pocket_task_is_found_by_its_id_without_painting_another(monkeypatch):
    tasks = load_tasks(TaskSource(format="pocket", limit=5))
    third, painted = tasks[3], []
    paint = PocketWorld.scene
    monkeypatch.setattr(PocketWorld, "scene", lambda world, index: painted.append(index) or paint(world, index))
    assert tasks.find("pocket-train-00003") == third
    assert tasks.find("pocket-train-00005") is None
    assert painted == [3]
