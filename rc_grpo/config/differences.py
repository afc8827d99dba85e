"""In what configurations differ, key by key."""

from collections.abc import Mapping
from typing import Any, Final


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()
"""Stands for the value of a key that a configuration does not have."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted name; lists and empty mappings are leaves."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def differences(*trees: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the keys whose values are not the same in all trees, with the value in each, `MISSING` where it has none.

    Args:
        trees: plain configurations, as ``model_dump(mode="json")`` or a run's ``config.yaml`` gives them.
    """
    leaves = [flat(tree) for tree in trees]
    keys = dict.fromkeys(key for tree in leaves for key in tree)
    rows = {key: tuple(tree.get(key, MISSING) for tree in leaves) for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}
