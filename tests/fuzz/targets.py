"""All targets by name. Imported one by one: some of them import torch and Ray."""

import importlib

from tests.fuzz.target import Target

NAMES = (
    "judge_answers",
    "rows",
    "images",
    "masks",
    "run_lengths",
    "lora_files",
    "configurations",
    "run_folders",
    "weight_files",
)


def load(name: str) -> Target:
    """Return a target.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in NAMES:
        raise KeyError(f"no target {name!r}; there are {', '.join(NAMES)}")
    target: Target = importlib.import_module(f"tests.fuzz.{name}").TARGET
    return target
