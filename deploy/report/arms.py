"""Runs that differ in their seed alone are one arm; what else differs is a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import Any, cast

import yaml

from deploy.configs import PACKAGED, load_config
from deploy.records.reading import RunRecord
from rc_grpo.config import dump
from rc_grpo.config.differences import MISSING, flat
from rc_grpo.config.differences import differences as differing_keys

_ABOUT_THE_PLACE = ("name", "output.", "cluster.")
"""Keys that say where a run is and what it writes, and nothing about what it does."""


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: on the page.
        runs: at least one.
    """

    label: str
    runs: tuple[RunRecord, ...]


@dataclass(frozen=True)
class Difference:
    """A key of the configuration that is not the same everywhere.

    Attributes:
        key: dotted.
        values: a run each, as YAML; ``–`` where a run has no such key.
    """

    key: str
    values: tuple[str, ...]


def arms_of(runs: Sequence[RunRecord]) -> list[Arm]:
    """Group runs, in the order of each arm's first."""
    members: dict[str, list[RunRecord]] = {}
    for run in runs:
        settings = {key: value for key, value in flat(run.config).items() if key != "seed" and not _is_place(key)}
        members.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(run)
    labels = [_label(group) for group in members.values()]
    return [
        Arm(label if labels.count(label) == 1 else " + ".join(run.name for run in group), tuple(group))
        for label, group in zip(labels, members.values(), strict=True)
    ]


def differences(runs: Sequence[RunRecord]) -> list[Difference]:
    """Return the keys in which runs differ, but for what only says where they are; one run is compared with nothing."""
    return _differing(*(run.config for run in runs))


def from_packaged(run: RunRecord) -> tuple[str, list[Difference]]:
    """Return the packaged config that a run is nearest to, and the keys that differ: there, and in the run."""
    found = {}
    for path in sorted(PACKAGED.glob("*.yaml")):
        found[path.stem] = _differing(_packaged(path.stem), run.config)
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


@cache
def _packaged(name: str) -> Mapping[str, Any]:
    """Return a packaged config as a run's file gives it; every run of a page is compared with all of them."""
    return cast(Mapping[str, Any], yaml.safe_load(dump(load_config(name))))


def _differing(*configs: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(key, tuple(map(_said, values)))
        for key, values in differing_keys(*configs).items()
        if not _is_place(key)
    ]


def _said(value: Any) -> str:
    if value is MISSING:
        return "–"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _is_place(key: str) -> bool:
    return key.startswith(_ABOUT_THE_PLACE)


def _label(group: Sequence[RunRecord]) -> str:
    names = [run.name for run in group]
    if len(names) == 1:
        return names[0]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in alike)
    return f"{shared}* ({len(names)} seeds)" if shared else f"{names[0]} … {names[-1]} ({len(names)} seeds)"
