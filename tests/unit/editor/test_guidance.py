"""One velocity of one or two passes, and what of it is recorded."""

import pytest
import torch
from torch import Tensor

from rc_grpo.algorithm import adjoint, solver
from rc_grpo.algorithm.method import Method
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.family import Forward
from rc_grpo.editor.guidance import GuidedVelocity, classifier_free
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import Layout, Probe
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal

LAYOUT = Layout(torch.arange(2), slice(2, 5))


class Pass:
    """A bound text whose velocity is ``weight * x + sigma``, with a prefix that stands for the weight."""

    def __init__(self, weight: float, log: list[str], name: str) -> None:
        self.layout = LAYOUT
        self.weight = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
        self._log, self._name = log, name

    def prefill(self, forward: Forward) -> Prefix:
        self._log.append(f"prefill {self._name} by {forward.__name__}")
        return Prefix((self.weight.detach().clone(),), (), LAYOUT)

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        self._log.append(f"{self._name}{' from its prefix' if prefix else ''}")
        return (self.weight if prefix is None else prefix.keys[0]) * x + sigma


class Body:
    """Combines as a pipeline that rescales does: the guided velocity keeps the positive one's norm."""

    def combine(self, positive: Tensor, negative: Tensor, scale: float) -> Tensor:
        guided = classifier_free(positive, negative, scale)
        return guided * (positive.norm() / guided.norm())


class Still:
    """Weights that stay what they are."""

    changes = 0
    acting = True


def engine() -> None:
    """What the model is called by; only its name is looked at."""


def guided(log: list[str], negative: bool = True) -> tuple[GuidedVelocity, Pass, Pass]:
    positive, other = Pass(0.7, log, "positive"), Pass(0.4, log, "negative")
    velocity = GuidedVelocity(
        Body(),  # type: ignore[arg-type]
        positive,
        other if negative else None,
        3.0,
        lambda: engine,
        lambda layout: log.append({id(LAYOUT): "expect", id(None): "rest"}.get(id(layout), "another layout")),
        lambda sigma: log.append(f"collect at {sigma}"),
        Still(),
    )
    return velocity, positive, other


def test_guidance_is_both_passes_combined_as_the_family_does_it() -> None:
    x, log = torch.tensor([[[1.0, 2.0]]], dtype=torch.float64), list[str]()
    velocity, _, _ = guided(log)
    positive, negative = 0.7 * x + 0.5, 0.4 * x + 0.5
    expected = negative + 3.0 * (positive - negative)
    torch.testing.assert_close(velocity(x, 0.5), expected * positive.norm() / expected.norm())
    assert log == ["expect", "positive", "collect at 0.5", "rest", "negative"]


def test_without_a_negative_text_the_model_is_run_once_and_nothing_is_combined() -> None:
    x, log = torch.ones(1, 1, 2, dtype=torch.float64), list[str]()
    velocity, _, _ = guided(log, negative=False)
    assert torch.equal(velocity(x, 0.5), 0.7 * x + 0.5)
    assert log == ["expect", "positive", "collect at 0.5"]


@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
def test_the_adjoint_goes_back_through_both_passes(method: Method) -> None:
    velocity, positive, negative = guided([])
    sigmas = torch.tensor([1.0, 0.7, 0.3, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x, pull = (torch.randn(1, 3, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    (solver.integrate(velocity, x, sigmas, method)[-1] * pull).sum().backward()
    expected = [part.weight.grad.clone() for part in (positive, negative)]  # type: ignore[union-attr]
    for part in (positive, negative):
        part.weight.grad = None
    with torch.no_grad():
        states = solver.integrate(velocity, x, sigmas, method)
    pulls = torch.zeros_like(states)
    pulls[-1] = pull
    adjoint.backward(velocity, states, sigmas, pulls, method=method)
    for part, gradient in zip((positive, negative), expected, strict=True):
        torch.testing.assert_close(part.weight.grad, gradient, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_a_prefix_is_computed_once_while_it_is_held_and_anew_afterwards() -> None:
    x, log = torch.ones(1, 1, 2, dtype=torch.float64), list[str]()
    velocity, positive, _ = guided(log)
    unheld = velocity(x, 0.5)
    log.clear()
    with velocity.held():
        assert torch.equal(velocity(x, 0.5), unheld)
        velocity(x, 0.2)
    asked = [line for line in log if "prefill" in line or "from its prefix" in line]
    assert sorted(asked[:2]) == ["prefill negative by engine", "prefill positive by engine"]
    assert asked[2:] == ["positive from its prefix", "negative from its prefix"] * 2
    positive.weight.add_(1.0)
    log.clear()
    assert not torch.equal(velocity(x, 0.5), unheld)
    assert "positive" in log


def test_a_prefix_is_not_held_where_gradients_would_miss_the_weights() -> None:
    velocity, _, _ = guided([])
    with pytest.raises(RuntimeError, match="without gradients"), velocity.held():
        pass


@torch.no_grad()
@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
def test_attention_is_recorded_once_a_step_at_its_first_evaluation(
    denoiser: Denoiser, conditions: Conditions, method: Method
) -> None:
    start, mask = normal(5, 2, *denoiser.latent_shape(conditions)), torch.arange(12) < 4
    counted, sigmas = torch.from_numpy(conditions.text_valid), denoiser.sigmas(4, conditions)
    field = denoiser.velocity(conditions)
    with denoiser.recording((0, 3), mask, counted) as recorder:
        states = solver.integrate(field, start, sigmas, method)
    assert recorder.density.shape == (2, 2, 4)
    for n in range(4):
        with denoiser.recording((0, 3), mask, counted) as alone:
            field(states[n], float(sigmas[n]))
        assert torch.equal(recorder.density[..., n], alone.density[..., 0])


def test_text_that_lies_anywhere_is_probed_as_if_it_lay_in_a_row() -> None:
    query, key = (normal(seed, 1, 9, 2, 4) for seed in (1, 2))
    mask, weights = torch.tensor([[True, False, True]]), torch.tensor([0.5, 1.5])
    text = torch.tensor([7, 4])
    with torch.no_grad():
        probed = Probe.of(mask, weights, Layout(text, slice(1, 4)))(query, key)
        order = [7, 4, 1, 2, 3]
        in_a_row = Probe.of(mask, weights, Layout(torch.arange(2), slice(2, 5)))(query[:, order], key[:, order])
        behind = Probe.of(mask, weights, Layout(text, slice(1, 4), queries_from=4))(query[:, 4:], key)
    assert torch.equal(probed, in_a_row)
    assert torch.equal(behind, probed)


@pytest.mark.parametrize("queries_from", [0, 1])
def test_the_regions_attention_to_the_prompt_is_over_all_keys_and_relative_to_the_whole_images(
    queries_from: int,
) -> None:
    query, key = normal(1, 2, 9, 3, 4), normal(2, 2, 9, 3, 4)
    # The text lies at 7, 4 and 8, of which 4 does not count; the target at 1 to 3, of which 2 is outside.
    mask, weights = torch.tensor([[True, False, True]]), torch.tensor([0.5, 0.0, 0.5])
    layout = Layout(torch.tensor([7, 4, 8]), slice(1, 4), queries_from=queries_from)
    with torch.no_grad():
        probed = Probe.of(mask, weights, layout, "to_text")(query[:, queries_from:], key)
    attention = torch.einsum("bqhd,bkhd->bhqk", query, key).div(2).softmax(dim=-1)
    on_text = attention[..., [7, 8]].sum(dim=-1).mean(dim=1)
    torch.testing.assert_close(probed, on_text[:, [1, 3]].mean(dim=1) / on_text[:, 1:4].mean(dim=1))


def test_a_model_whose_text_never_sees_the_target_is_refused_with_the_way_out() -> None:
    layout = Layout(torch.arange(2), slice(2, 5), directions=frozenset({"to_text"}))
    with pytest.raises(ValueError, match=r"rollout\.acd\.direction=to_text"):
        Probe.of(torch.ones(1, 3, dtype=torch.bool), torch.ones(2), layout)


@pytest.mark.parametrize(("tokens", "slots"), [(4, 2), (3, 1)])
def test_a_mask_or_text_of_another_length_is_no_part_of_the_layout(tokens: int, slots: int) -> None:
    with pytest.raises(ValueError, match="3 target tokens and 2 text slots"):
        Probe.of(torch.ones(1, tokens, dtype=torch.bool), torch.ones(slots), LAYOUT)
