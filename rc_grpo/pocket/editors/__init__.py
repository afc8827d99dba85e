"""The pocket editors, each a model of another family, trained by the same script on the same world."""

from importlib import import_module
from typing import Any

from rc_grpo.pocket.editors.protocol import PocketEditor

NAMES = ("kontext", "klein")


def named(name: str) -> PocketEditor:
    """Return one of `NAMES`."""
    editor: PocketEditor = import_module(f"{__name__}.{name}").EDITOR
    return editor


def of(pipeline: Any) -> PocketEditor:
    """Return the one that a pipeline runs.

    Raises:
        LookupError: it is none's.
    """
    kind = type(pipeline).__name__
    for editor in map(named, NAMES):
        if editor.pipeline == kind:
            return editor
    raise LookupError(f"no pocket editor runs in a {kind}")
