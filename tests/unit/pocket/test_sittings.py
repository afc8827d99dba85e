from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rc_grpo.pocket.making import clock, sitting
from rc_grpo.pocket.making.clock import Clock
from rc_grpo.pocket.making.flow_state import FlowState
from rc_grpo.pocket.making.sitting import has_state, load_state, save_state
from rc_grpo.pocket.train import main

TENSORS = {f"part.{n}": torch.arange(100.0) + n for n in range(7)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitting, "PART_BYTES", 900)


def test_a_state_comes_back_from_files_of_bounded_size(tmp_path: Path, small: None) -> None:
    save_state(tmp_path, "flow", TENSORS, {"step": "3"})
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"flow-{n}-of-4.safetensors" for n in (1, 2, 3, 4)]
    assert all(sum(tensor.nbytes for tensor in load_file(path).values()) <= 900 for path in paths)
    tensors, facts = load_state(tmp_path, "flow")
    assert facts == {"step": "3"}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_later_state_replaces_an_earlier_one(tmp_path: Path, small: None) -> None:
    save_state(tmp_path, "flow", TENSORS, {"step": "3"})
    save_state(tmp_path, "flow", {"part.0": torch.ones(2)}, {"step": "4"})
    tensors, facts = load_state(tmp_path, "flow")
    assert (list(tensors), facts) == (["part.0"], {"step": "4"})


def test_a_missing_part_is_named(tmp_path: Path, small: None) -> None:
    save_state(tmp_path, "flow", TENSORS, {})
    for name in ("flow-2-of-4.safetensors", "flow-4-of-4.safetensors"):
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError, match=name):
            load_state(tmp_path, "flow")
        (tmp_path / "away").rename(tmp_path / name)
    assert not has_state(tmp_path, "moments")
    with pytest.raises(FileNotFoundError, match="moments-1-of-1"):
        load_state(tmp_path, "moments")


def test_parts_of_different_savings_are_refused(tmp_path: Path, small: None) -> None:
    save_state(tmp_path, "flow", TENSORS, {"step": "3"})
    old = (tmp_path / "flow-2-of-4.safetensors").read_bytes()
    save_state(tmp_path, "flow", TENSORS, {"step": "4"})
    (tmp_path / "flow-2-of-4.safetensors").write_bytes(old)
    with pytest.raises(ValueError, match="different savings"):
        load_state(tmp_path, "flow")


def trained(steps: int, state: FlowState) -> FlowState:
    for number in range(steps):
        generator = torch.Generator().manual_seed(state.step)
        loss = state.editor(torch.randn(8, 4, generator=generator)).square().mean()
        for group in state.optimizer.param_groups:
            group["lr"] = 1e-2
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.average.update_parameters(state.editor)
        state.step += 1
        state.seconds += number
    return state


def fresh() -> FlowState:
    torch.manual_seed(0)
    return FlowState(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)))


def test_a_training_goes_on_where_the_last_sitting_ended(tmp_path: Path) -> None:
    first = trained(20, fresh())
    first.scenes = 400
    first.save(tmp_path)
    second = fresh()
    second.load(tmp_path)
    assert (second.step, second.seconds, second.scenes) == (20, first.seconds, 400)
    for mine, theirs in zip(second.editor.parameters(), first.editor.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    trained(10, first)
    trained(10, second)
    start = torch.cat([weight.flatten() for weight in fresh().editor.parameters()])
    for kind in ("editor", "average"):
        one, other = (
            torch.cat([weight.detach().flatten() for weight in getattr(state, kind).parameters()])
            for state in (first, second)
        )
        # The moments were rounded to bfloat16, the average's distance too: to under a fiftieth of the way.
        assert (one - other).norm() < 0.02 * (one - start).norm()


def test_weights_that_are_not_trained_are_not_handed_on(tmp_path: Path) -> None:
    def half_frozen() -> FlowState:
        state = fresh()
        state.editor[1].requires_grad_(False)
        return state

    first = trained(5, half_frozen())
    first.save(tmp_path)
    names = [name for kind in ("flow", "moments") for name in load_state(tmp_path, kind)[0]]
    assert {name.split(".", 1)[1] for name in names} == {"0.weight", "0.bias"}
    second = half_frozen()
    second.load(tmp_path)
    trained(1, second)
    assert not torch.equal(second.editor[0].weight, first.editor[0].weight)
    assert torch.equal(second.editor[1].weight, first.editor[1].weight)


def test_without_moments_the_optimiser_begins_anew(tmp_path: Path) -> None:
    trained(5, fresh()).save(tmp_path)
    for path in tmp_path.glob("moments-*"):
        path.unlink()
    state = fresh()
    state.load(tmp_path)
    assert state.step == 5
    assert not state.optimizer.state


def test_moments_of_another_step_are_refused(tmp_path: Path) -> None:
    state = trained(5, fresh())
    state.save(tmp_path)
    old = next(tmp_path.glob("moments-*")).read_bytes()
    trained(1, state).save(tmp_path)
    next(tmp_path.glob("moments-*")).write_bytes(old)
    with pytest.raises(ValueError, match="another step"):
        fresh().load(tmp_path)


def test_the_rate_of_two_sittings_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    whole = Clock(100)
    rates = []
    for second in range(100):
        now[0] = second
        rates.append(whole.learning_rate(1.0))
    parts = []
    for spent in (0, 60):
        now[0] = 0.0
        part = Clock(60 if spent == 0 else 40, spent, 100)
        for second in range(60 if spent == 0 else 40):
            now[0] = second
            parts.append(part.learning_rate(1.0))
            assert part.spent == spent + second
        now[0] += 1
        assert part.progress == 1
    assert parts == pytest.approx(rates)


@pytest.mark.parametrize("part", ["flow", "model"])
def test_a_part_without_its_autoencoder_is_refused(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--part", part, "--out", str(tmp_path / "out"), "--vae", str(tmp_path), "--start", str(tmp_path)])
    assert "--vae FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
