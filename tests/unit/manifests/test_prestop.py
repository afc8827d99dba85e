"""A pod that has to go: the head waits for its jobs, a worker for the actors on it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from deploy.docker import prestop


@dataclass(frozen=True)
class Status:
    over: bool

    def is_terminal(self) -> bool:
        return self.over


@dataclass(frozen=True)
class Details:
    submission_id: str | None
    status: Status


@dataclass
class Cluster:
    """Jobs, of which each that is asked to stop is over after so many looks."""

    looks: int = 2
    running: dict[str, int | None] = field(default_factory=lambda: {"train": None})
    asked: list[str] = field(default_factory=list)

    def list_jobs(self) -> list[Details]:
        found = [Details("done", Status(True)), Details(None, Status(False))]
        for name, left in self.running.items():
            found.append(Details(name, Status(left == 0)))
            if left:
                self.running[name] = left - 1
        return found

    def stop_job(self, job_id: str) -> bool:
        self.asked.append(job_id)
        self.running[job_id] = self.looks
        return True


def _wait(tries: int) -> Callable[[Callable[[], bool]], bool]:
    return lambda done: any(done() for _ in range(tries))


def test_jobs_that_run_are_asked_once_and_waited_for() -> None:
    cluster = Cluster()
    assert prestop.stop_jobs(cluster, _wait(5))
    assert cluster.asked == ["train"]


def test_a_job_that_does_not_end_in_time_is_told() -> None:
    assert not prestop.stop_jobs(Cluster(looks=9), _wait(3))


def test_a_head_without_jobs_goes_at_once() -> None:
    cluster = Cluster(running={})
    assert prestop.stop_jobs(cluster, _wait(1))
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("titles", "busy"),
    [
        (
            [
                "/bin/bash -c ray start",
                "raylet --x",
                "ray::IDLE",
                "ray::IDLE_SpillWorker",
                "ray::DashboardAgent",
                "ray::RuntimeEnvAgent",
            ],
            False,
        ),
        (["ray::IDLE", "ray::RolloutActor.rollout"], True),
        (["ray::learner-0"], True),
        ([], False),
    ],
)
def test_a_worker_knows_whether_an_actor_is_on_it(titles: list[str], busy: bool) -> None:
    assert prestop.has_actors(titles) == busy


def test_waiting_has_an_end() -> None:
    assert not prestop.within(0.02, lambda: False, pause=0.005)
    assert prestop.within(0.0, lambda: True)


def test_a_pods_own_processes_can_be_read() -> None:
    assert any("pytest" in title for title in prestop.titles())
