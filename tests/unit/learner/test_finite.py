"""A NaN or an infinity ends an update on every rank, and never leaves the learner."""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed

from deploy.errors import EXIT_CODE, plain_errors
from learner import rank as ranks
from learner.errors import NonFiniteError
from learner.finite import first_non_finite, require_finite
from learner.rank import LearnerRank
from learner.work import GroupWork, RunShape
from rc_grpo.config import LearnerConfig, ObjectiveConfig
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import CandidateGroup, Conditions
from tests.conftest import TINY
from tests.unit.learner.test_update import make_group, work_for

BAD = [float("nan"), float("inf"), -float("inf")]
CPU = torch.device("cpu")


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", [0, 7, 11])
def test_the_first_tensor_with_a_bad_number_is_named(bad: float, where: int) -> None:
    tensors = {name: torch.randn(3, 4) for name in "abcd"}
    assert first_non_finite(tensors) is None
    for name in "cb":
        tensors[name].view(-1)[where] = bad
        assert first_non_finite(tensors) == name
    assert first_non_finite({}) is None
    assert first_non_finite({"a": torch.tensor([3e38, -3e38]), "b": torch.empty(0)}) is None


def _ask(rank: int, world: int, store: str, found: str | None, said: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        require_finite(found, 7, CPU)
        said.put((rank, None))
    except NonFiniteError as error:
        said.put((rank, str(error)))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((None, None, None), None),
        ((None, "the gradient of λ.lora_B", None), "the gradient of λ.lora_B, on learner-1"),
        ((None, "one", "x" * 9000), "one, on learner-1"),
        ((None, None, "x" * 9000), "x" * 512),
    ],
)
def test_every_rank_tells_what_the_first_of_them_found(
    tmp_path: Path, found: tuple[str | None, ...], told: str | None
) -> None:
    fork = multiprocessing.get_context("fork")
    said: Any = fork.Queue()
    asked = [fork.Process(target=_ask, args=(n, 3, str(tmp_path / "s"), one, said)) for n, one in enumerate(found)]
    for process in asked:
        process.start()
    answers = dict(said.get(timeout=60) for _ in asked)
    for process in asked:
        process.join()
    assert answers.keys() == {0, 1, 2}
    assert len(set(answers.values())) == 1
    assert (answers[0] is None) == (told is None)
    if told is not None:
        assert answers[0].startswith(f"update 7 is not finite: {told}. Nothing of it was published or saved")


class Engine:
    """In DeepSpeed's place: plain SGD, and what a rank asks of an engine beside."""

    def __init__(self, denoiser: Denoiser, norm: float | None, break_step: Callable[[], None]) -> None:
        self._weights = denoiser.policy.weights()
        self._norm = norm
        self._break = break_step
        self.steps = 0

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.steps += 1
        with torch.no_grad():
            for weight in self._weights.values():
                assert weight.grad is not None
                weight -= 0.1 * weight.grad
                weight.grad = None
        self._break()

    def get_global_grad_norm(self) -> float | None:
        return self._norm

    def get_lr(self) -> list[float]:
        return [0.1]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def learner(alone: None, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> LearnerRank:
    monkeypatch.setattr(ranks, "load_denoiser", lambda *_: denoiser)
    monkeypatch.setattr(ranks, "prepare_process", lambda *_: None)
    monkeypatch.setattr(ranks.activations, "arrange", lambda *_, **__: None)
    monkeypatch.setattr(ranks.ray, "get", lambda refs, timeout: refs)
    monkeypatch.setattr(ranks, "save_engine", lambda *_, **__: None)
    rank = LearnerRank(
        0, TINY, LearnerConfig(ema_decay=0.5), ObjectiveConfig(), RunShape(0, "euler", 3, 4, 0, {"j": 1})
    )
    monkeypatch.setattr(rank, "_world_size", 1, raising=False)
    with_engine(rank, denoiser)
    rank._ema = rank._weights()
    return rank


def with_engine(
    rank: LearnerRank, denoiser: Denoiser, norm: float | None = 1.0, break_step: Callable[[], None] = lambda: None
) -> Engine:
    rank._engine = Engine(denoiser, norm, break_step)
    return rank._engine


def work(group: CandidateGroup, conditions: Conditions) -> GroupWork:
    made = work_for()
    return GroupWork(group.to_arrow(), conditions, made.advantages, made.anchors, made.steps, on_policy=True)


def test_a_finite_update_is_published_and_saved_and_its_memory_handed_back(
    learner: LearnerRank,
    denoiser: Denoiser,
    conditions: Conditions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ranks, "hand_back", lambda *given: handed.append(given))
    learner.update([work(make_group(denoiser, conditions), conditions)], 1)
    assert handed == [(LearnerConfig().resources, denoiser.device)]
    version, _ = learner.publish()
    assert version is not None
    assert version.number == 1
    learner.save(tmp_path, "t")


@pytest.mark.parametrize("bad", BAD)
def test_a_loss_that_is_not_finite_ends_the_update_before_its_step_and_names_the_task(
    learner: LearnerRank, denoiser: Denoiser, conditions: Conditions, bad: float
) -> None:
    group = make_group(denoiser, conditions)
    before = learner._weights()
    states = np.array(group.states)
    states[1, 2, 0, 0] = bad
    group = CandidateGroup(**{**vars(group), "states": states})
    with pytest.raises(NonFiniteError, match="update 1 is not finite: the objective of task t, on learner-0"):
        learner.update([work(group, conditions)], 1)
    assert learner._engine.steps == 0
    assert all(torch.equal(before[name], after) for name, after in learner._weights().items())


@pytest.mark.parametrize("bad", BAD)
def test_a_gradient_that_is_not_finite_ends_the_update_before_its_step_and_is_named(
    learner: LearnerRank, denoiser: Denoiser, conditions: Conditions, bad: float
) -> None:
    name, weight = list(denoiser.policy.weights().items())[5]
    assert isinstance(weight, torch.nn.Parameter)
    weight.register_hook(lambda gradient: gradient * bad)
    with pytest.raises(NonFiniteError, match=f"update 1 is not finite: the gradient of {name}, on learner-0"):
        learner.update([work(make_group(denoiser, conditions), conditions)], 1)
    assert learner._engine.steps == 0


@pytest.mark.parametrize("bad", BAD)
def test_a_norm_that_is_not_finite_ends_the_update_whatever_deepspeed_did_with_it(
    learner: LearnerRank, denoiser: Denoiser, conditions: Conditions, bad: float
) -> None:
    with_engine(learner, denoiser, norm=bad)
    with pytest.raises(NonFiniteError, match="the gradients' norm, on learner-0"):
        learner.update([work(make_group(denoiser, conditions), conditions)], 1)


@pytest.mark.parametrize("bad", BAD)
def test_a_weight_that_is_not_finite_is_named_and_leaves_the_learner_by_no_way(
    learner: LearnerRank, denoiser: Denoiser, conditions: Conditions, tmp_path: Path, bad: float
) -> None:
    name, weight = list(denoiser.policy.weights().items())[3]

    def spoil() -> None:
        weight.data.view(-1)[1] = bad

    with_engine(learner, denoiser, norm=None, break_step=spoil)
    averages = dict(learner._ema or {})
    with pytest.raises(NonFiniteError, match=f"update 1 is not finite: the weight {name}, on learner-0"):
        learner.update([work(make_group(denoiser, conditions), conditions)], 1)
    for leave in (learner.publish, lambda: learner.save(tmp_path, "t")):
        with pytest.raises(NonFiniteError, match=name):
            leave()
    assert all(average.isfinite().all() for average in averages.values())


def test_the_command_ends_with_the_cause_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, plain_errors():
        raise NonFiniteError("update 7 is not finite: the weight a.lora_B.weight, on learner-1")
    assert end.value.code == EXIT_CODE
    assert capsys.readouterr().err == "error: update 7 is not finite: the weight a.lora_B.weight, on learner-1\n"
