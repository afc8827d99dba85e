"""What a pod does before it goes: the head has its jobs stop and waits for them, a worker waits for its actors.

A cluster that is taken down loses all its pods at once. The update under way is finished only if the workers outlive
the driver, so they stay while an actor works on them; one that the autoscaler gives up has none and goes at once.
In the images as /opt/rc-grpo/prestop.py: KubeRay's preStop hook runs it, and the pod's grace period bounds it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import psutil

DASHBOARD = "http://127.0.0.1:8265"
PATIENCE = "RAY_JOB_STOP_WAIT_TIME_S"
_AT_WORK = "ray::"
# Ray's own, on every node for as long as it is one.
_ALWAYS_THERE = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


class Jobs(Protocol):
    """The part of Ray's job client that stopping takes."""

    def list_jobs(self) -> list[Any]:
        """Return what is known of each job."""

    def stop_job(self, job_id: str) -> bool:
        """Ask a job to stop; asked twice, Ray passes it on once."""


def stop_jobs(client: Jobs, wait: Callable[[Callable[[], bool]], bool]) -> bool:
    """Ask every submitted job that is not over to stop; return whether all of them did in time."""

    def under_way() -> list[str]:
        return [job.submission_id for job in client.list_jobs() if job.submission_id and not job.status.is_terminal()]

    for job in under_way():
        client.stop_job(job)
    return wait(lambda: not under_way())


def has_actors(titles: Iterable[str]) -> bool:
    """Tell from the titles of processes whether a Ray actor or task is at work."""
    return any(title.startswith(_AT_WORK) and not title.startswith(_ALWAYS_THERE) for title in titles)


def titles() -> list[str]:
    """Return the command lines of this pod's processes, which Ray sets to what they do."""
    found = []
    for process in psutil.process_iter():
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:  # It ended meanwhile.
            continue
    return found


def within(seconds: float, done: Callable[[], bool], pause: float = 2.0) -> bool:
    """Wait until something is so; return whether it came to be in time."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
    return True


def main(role: str) -> bool:
    """Do what a pod of this role has to; return whether it came to its end in time."""
    patience = float(os.environ.get(PATIENCE, "30"))
    if role == "worker":
        return within(patience, lambda: not has_actors(titles()))
    from ray.job_submission import JobSubmissionClient

    return stop_jobs(JobSubmissionClient(DASHBOARD), lambda done: within(patience, done))


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1]) else 1)
