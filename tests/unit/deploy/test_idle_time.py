import pytest

from deploy.batches import collector
from deploy.batches.collector import IdleTime
from deploy.records import metrics
from deploy.records.metrics import BusyShares


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in (collector, metrics):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_waiting_for_scores_is_told_from_waiting_for_rollouts(clock: Clock) -> None:
    waits = IdleTime()
    clock.passes(10)
    with waits.waiting():
        with waits.rolling_out():
            clock.passes(3)
        clock.passes(2)
    clock.passes(50)
    assert waits.take() == pytest.approx({"rollouts": 3, "scores": 2})
    assert waits.take() == {"rollouts": 0, "scores": 0}


def test_rollouts_that_go_on_while_the_learner_learns_are_no_waiting(clock: Clock) -> None:
    waits = IdleTime()
    with waits.rolling_out():
        clock.passes(5)
        with waits.waiting():
            clock.passes(1)
    assert waits.take() == pytest.approx({"rollouts": 1, "scores": 0})


def test_a_pool_s_share_is_of_its_workers_time_since_the_last_question(clock: Clock) -> None:
    shares = BusyShares()
    clock.passes(10)
    assert shares.shares({"judge": {"workers": 2, "busy_seconds": 5.0}})["pool/judge_busy_share"] == pytest.approx(0.25)
    clock.passes(10)
    assert shares.shares({"judge": {"workers": 2, "busy_seconds": 25.0}})["pool/judge_busy_share"] == pytest.approx(1.0)
