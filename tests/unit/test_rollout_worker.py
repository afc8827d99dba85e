"""The rollout actor's promises, with an editor that notes what it is asked in place of a model."""

import os
from typing import Any

import numpy as np
import pytest

from rc_grpo.config import EditorConfig, RolloutConfig
from rc_grpo.editor import lora
from rc_grpo.messages import CandidateGroup, RolloutSeeds, VersionMismatchError
from rollout_workers import rollout, worker
from rollout_workers.worker import RolloutWorker
from tests.unit.growing import VERSION, Growing, a_task

CONFIG = RolloutConfig(steps=4, threads=3)
SEEDS = RolloutSeeds(5, (11, 7))
WEIGHTS = np.arange(8, dtype=np.uint8)
TASK_BYTES = 4 * (4 * 5 + 7) + 32 * 48 * 3 + 4 * 32 * 48


class Started:
    """A worker, its editor, and what both were started with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.editor = Growing()
        self.loaded: list[Any] = []
        self.threads: list[int] = []

        def load(*arguments: Any) -> Growing:
            self.loaded.append(arguments)
            return self.editor

        monkeypatch.setattr(worker, "load_rollout_editor", load)
        monkeypatch.setattr(worker, "prepare_process", self.threads.append)
        self.worker = RolloutWorker("rollout-3", EditorConfig(model="growing"), CONFIG, 17)

    def rollout(self, task_id: str = "t", version: object = VERSION, **options: Any) -> Any:
        arguments = {"steps": None, "guidance": None, "keep_states": True} | options
        return self.worker.rollout(a_task(task_id), SEEDS, version, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


def test_a_worker_starts_with_the_editor_seed_and_threads_it_is_given(started: Started) -> None:
    assert started.loaded == [(EditorConfig(model="growing"), CONFIG, 17)]
    assert started.threads == [3]
    assert repr(started.worker) == "rollout-3"


def test_a_worker_tells_where_it_is_and_what_it_holds(started: Started) -> None:
    told = {"name": "rollout-3", "pid": os.getpid(), "node": None, "cores": os.cpu_count(), "device": "cpu"}
    assert started.worker.describe() == told | {"policy": None}
    started.worker.adopt(VERSION, WEIGHTS)
    assert started.worker.describe() == told | {"policy": "v3:dddddddd"}


def test_the_untrained_policy_is_version_0_and_comes_from_a_worker_that_holds_no_other(started: Started) -> None:
    version, data = started.worker.untrained()
    assert (version.number, version.modules, version.is_identity) == (0, 1, True)
    assert {name: tensor.tolist() for name, tensor in lora.deserialise(data).items()} == {
        "p.lora_A.weight": [1.0],
        "p.lora_B.weight": [[0.0]],
    }
    started.worker.adopt(VERSION, WEIGHTS)
    with pytest.raises(VersionMismatchError, match="rollout-3 holds v3:dddddddd"):
        started.worker.untrained()


def test_a_version_is_proved_by_the_editor_under_the_workers_name(started: Started) -> None:
    proof = started.worker.adopt(VERSION, WEIGHTS)
    assert started.editor.adopted == [(VERSION, bytes(range(8)), "rollout-3")]
    assert (proof.worker, proof.version, proof.canary_shift) == ("rollout-3", 3, 0.5)


def test_nothing_is_rolled_out_before_a_version_was_proved_nor_after_one_that_was_not(started: Started) -> None:
    with pytest.raises(VersionMismatchError, match="rollout-3 holds None, the rollout of t is for v3"):
        started.rollout()
    started.worker.adopt(VERSION, WEIGHTS)
    started.rollout()
    started.editor.refuses = True
    with pytest.raises(RuntimeError, match="cut off"):
        started.worker.adopt(VERSION, WEIGHTS)
    assert started.worker.describe()["policy"] is None
    with pytest.raises(VersionMismatchError, match="holds None"):
        started.rollout()
    assert started.editor.encoded == ["t"]


@pytest.mark.parametrize("change", [{"number": 4}, {"digest": "e" * 64}])
def test_a_rollout_for_another_version_is_refused(started: Started, change: dict[str, Any]) -> None:
    started.worker.adopt(VERSION, WEIGHTS)
    other = type(VERSION)(**(vars(VERSION) | change))
    with pytest.raises(VersionMismatchError, match="rollout-3 holds v3:dddddddd"):
        started.rollout(version=other)


@pytest.mark.parametrize(("steps", "keep_states", "levels"), [(None, True, 5), (2, True, 3), (2, False, 3)])
def test_a_rollout_is_what_was_asked_for_and_its_receipt_tells_of_it(
    started: Started, steps: int | None, keep_states: bool, levels: int
) -> None:
    started.worker.adopt(VERSION, WEIGHTS)
    receipt, batch, conditions = started.rollout("cat", steps=steps, keep_states=keep_states)
    group = CandidateGroup.from_arrow(batch)
    assert (group.task_id, group.seeds, group.policy, group.worker) == ("cat", SEEDS, VERSION, "rollout-3")
    assert len(group.sigmas) == levels
    assert (group.states is not None) == keep_states
    assert (receipt.task_id, receipt.policy, receipt.worker) == ("cat", VERSION, "rollout-3")
    assert receipt.background_drift == pytest.approx((0, 10 / 255, 20 / 255), rel=1e-5)
    assert receipt.diversity == pytest.approx(10 / 255 * (2 / 3) ** 0.5, rel=1e-5)
    assert conditions.arrays["prompt"].shape == (4, 5)


def test_the_receipts_seconds_go_from_encoding_to_shipping(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    started.worker.adopt(VERSION, WEIGHTS)
    clock = iter(2.0**n for n in range(8))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    receipt, _, _ = started.rollout()
    assert receipt.seconds == {"encode": 1.0, "integrate": 4.0, "decode": 8.0, "collect": 16.0, "ship": 64.0}


def test_a_task_is_prepared_once_and_the_one_unused_for_longest_makes_room(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CACHE_BYTES", 2 * TASK_BYTES)
    started.worker.adopt(VERSION, WEIGHTS)
    for task_id in ("a", "b", "a", "b", "a"):
        started.rollout(task_id)
    assert started.editor.encoded == ["a", "b"]
    for task_id in ("c", "a", "c", "b", "c", "a"):
        started.rollout(task_id)
    assert started.editor.encoded == ["a", "b", "c", "b", "a"]


def test_as_many_tasks_make_room_as_it_takes(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    started.worker.adopt(VERSION, WEIGHTS)
    for limit, tasks in ((3, "abc"), (1, "d"), (3, "bd")):
        monkeypatch.setattr(worker, "CACHE_BYTES", limit * TASK_BYTES)
        for task_id in tasks:
            started.rollout(task_id)
    assert started.editor.encoded == ["a", "b", "c", "d", "b"]


def test_a_task_too_large_for_the_cache_is_kept_while_it_is_the_only_one(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CACHE_BYTES", TASK_BYTES - 1)
    started.worker.adopt(VERSION, WEIGHTS)
    for task_id in ("a", "a", "b", "b", "a"):
        started.rollout(task_id)
    assert started.editor.encoded == ["a", "b", "a"]


def test_a_rollout_waits_for_the_device_at_each_of_its_parts(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    for module in (worker, rollout):
        monkeypatch.setattr(module, "finished", lambda device: waited.append(str(device)) or 0.0)
    started.worker.adopt(VERSION, WEIGHTS)
    started.rollout()
    assert waited == ["cpu"] * 5


def test_after_each_group_and_pool_memory_is_handed_back(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Any] = []
    monkeypatch.setattr(worker, "hand_back", lambda *given: handed.append(given))
    started.worker.adopt(VERSION, WEIGHTS)
    started.rollout()
    started.worker.explore(a_task(), SEEDS, VERSION)
    assert handed == [(CONFIG.resources, started.editor.device)] * 2


def test_a_pool_is_explored_for_a_proved_version_alone_and_told_by_digests(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RolloutConfig(steps=4, group_size=3, explore={"candidates": 4, "steps": 2})
    exploring = RolloutWorker("rollout-4", EditorConfig(model="growing"), config, 17)
    seeds = RolloutSeeds(5, (11, 7, 3))
    with pytest.raises(VersionMismatchError, match="rollout-4 holds None, the rollout of t is for v3"):
        exploring.explore(a_task(), seeds, VERSION)
    exploring.adopt(VERSION, WEIGHTS)
    receipt, batch = exploring.explore(a_task(), seeds, VERSION)
    pool = CandidateGroup.from_arrow(batch)
    assert (pool.seeds, pool.policy, pool.states, len(pool.sigmas)) == (seeds, VERSION, None, 3)
    assert [len(part) for part in started.editor.decoded] == [3, 1]
    assert receipt.images == rollout.image_digests(pool.images)
    assert (receipt.images[0], len(set(receipt.images))) == (receipt.images[3], 3)


def test_a_second_editor_that_explores_takes_every_version_too(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Growing()
    monkeypatch.setattr(worker, "load_exploring_editor", lambda *arguments: other)
    two = RolloutWorker("rollout-5", EditorConfig(model="growing"), CONFIG, 17)
    two.adopt(VERSION, WEIGHTS)
    assert other.adopted == [(VERSION, bytes(range(8)), "rollout-5")]
    other.refuses = True
    with pytest.raises(RuntimeError, match="cut off"):
        two.adopt(VERSION, WEIGHTS)
    assert two.describe()["policy"] is None
