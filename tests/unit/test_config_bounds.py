"""No value passes the configuration that PyTorch, Ray, vLLM or a timer would refuse later, or take for another."""

import copy
import math
import types
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import torch
import yaml
from pydantic import BaseModel

from deploy.configs import load_config
from rc_grpo.config import ConfigError, RunConfig, dump, parse

JUDGES = "reward.judges={ground_truth: {kind: ground_truth}, vlm: {kind: editscore, model: m}}"
AUTOSCALE = "rollout.autoscale={max_workers: 2}"
TREE: dict[str, Any] = yaml.safe_load(dump(load_config("pocket", (JUDGES, AUTOSCALE))))
Path = tuple[str | int, ...]


def leaves(annotation: Any, value: Any, path: Path = ()) -> Iterator[tuple[Path, type]]:
    """Every place of a number in a configuration: where it is, and of which kind."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (int, float):
        yield path, annotation
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from leaves(field.annotation, (value or {}).get(name), (*path, name))
    elif origin is Annotated:
        yield from leaves(arguments[0], value, path)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            kind = getattr(argument, "model_fields", {}).get("kind")
            if kind is None or value["kind"] in get_args(kind.annotation):
                yield from leaves(argument, value, path)
    elif origin is tuple:
        for index, argument in enumerate(arguments):
            if argument is not ...:
                yield from leaves(argument, None, (*path, index))
    elif origin is dict:
        for key in value or {"a": None}:
            yield from leaves(arguments[1], (value or {}).get(key), (*path, key))
    else:
        assert origin is Literal or not arguments, annotation


NUMBERS = sorted(set(leaves(RunConfig, TREE)), key=str)
FLOATS = [path for path, kind in NUMBERS if kind is float]
INTEGERS = [path for path, kind in NUMBERS if kind is int]


def named(path: Path) -> str:
    return ".".join(map(str, path))


def with_value(path: Path, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(TREE)
    node: Any = tree
    for part, following in pairwise(path):
        if isinstance(node, dict) and not node.get(part):
            node[part] = [0] if isinstance(following, int) else {}
        node = node[part]
    node[path[-1]] = value
    return tree


def test_the_walk_finds_numbers_of_every_branch() -> None:
    found = {named(path) for path, _ in NUMBERS}
    assert {"learner.betas.1", "learner.ema_decay", "rollout.resources.custom.a", "rollout.autoscale.spare"} <= found
    assert {"reward.judges.vlm.sampling.top_p", "reward.judges.vlm.server.gpu_memory_utilization", "seed"} <= found
    assert len(FLOATS) > 50
    assert len(INTEGERS) > 50


@pytest.mark.parametrize("path", FLOATS, ids=named)
def test_no_number_is_infinite_or_none(path: Path) -> None:
    for value in (math.inf, -math.inf, math.nan, ".inf", "nan", "-Infinity"):
        with pytest.raises(ConfigError, match=str(path[0])):
            parse(with_value(path, value))


@pytest.mark.parametrize("path", [path for path, _ in NUMBERS], ids=named)
def test_a_switch_is_no_number(path: Path) -> None:
    for value in (True, False):
        with pytest.raises(ConfigError, match=r"takes no true or false"):
            parse(with_value(path, value))


@pytest.mark.parametrize("path", INTEGERS, ids=named)
def test_no_count_is_beyond_what_counts_are_held_in(path: Path) -> None:
    for value in (2**64, -(2**64), 10**400):
        with pytest.raises(ConfigError):
            parse(with_value(path, value))
    if path[-1] != "seed":
        with pytest.raises(ConfigError):
            parse(with_value(path, 2**31))


@pytest.mark.parametrize("path", [path for path in FLOATS if str(path[-1]).endswith("_s")], ids=named)
def test_times_are_such_as_a_timer_takes(path: Path) -> None:
    parse(with_value(path, 1e8))
    timedelta(seconds=1e8)
    for value in (0, -1, 1e9, 1e300):
        with pytest.raises(ConfigError):
            parse(with_value(path, value))


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        (("seed",), [0, 2**64 - 1], [-1, 2**64]),
        (("learner", "betas"), [[0, 0.999], [0.5, 0.0]], [[1.5, -3], [0.9, 1], [-0.1, 0.9], [0.9], [0.9, 0.9, 0.9]]),
        (("learner", "learning_rate"), [1e-30, "1e-4", 1], [0, -1e-4, 1.1, 1e38, "fast"]),
        (("learner", "weight_decay"), [0, 0.1, 1], [-1e-9, 1e38]),
        (("learner", "grad_norm"), [1e-6], [0, -1]),
        (("learner", "ema_decay"), [0.5, None], [0, 1]),
        (("objective", "tau_edit"), [0.01, 100], [0, 1e-200, 1e200]),
        (("objective", "quasi_norm_p"), [0.8, None], [0, 1e-200]),
        (("editor", "lora", "alpha"), [0.5, 512], [0, -1, 1e300]),
        (("editor", "lora", "targets"), [["attn.to_q"]], [[], [""]]),
        (("editor", "resolution"), [512], [0, 10**6]),
        (("rollout", "resources", "num_gpus"), [0, 0.25, 1, 2], [-1, 1.5]),
        (("rollout", "resources", "custom"), [{"a": 1.5}, {}], [{"a": -1}, {"GPU": 1}, {"CPU": 1}]),
        (("reward", "judges", "vlm", "server", "gpu_memory_utilization"), [1, 0.1], [0, 1.01]),
        (("reward", "judges", "vlm", "sampling", "seed"), [0, 2**40], [-1, 2**63]),
        (("name",), ["a" * 100], ["a" * 101, "a\n"]),
        (("loop", "updates"), [100_000], [0, 2**31 - 1]),
    ],
    ids=lambda value: named(value) if isinstance(value, tuple) else "",
)
def test_bounds_are_those_of_what_takes_the_value(path: Path, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        parse(with_value(path, value))
    for value in bad:
        with pytest.raises(ConfigError, match=rf"does not fit:\n  {path[0]}"):
            parse(with_value(path, value))


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.999999, 0.5), (0.9, 0.999)])
def test_what_passes_is_taken_by_the_optimiser(betas: tuple[float, float]) -> None:
    config = parse(with_value(("learner", "betas"), list(betas)))
    torch.optim.AdamW([torch.zeros(1)], lr=config.learner.learning_rate, betas=config.learner.betas)
