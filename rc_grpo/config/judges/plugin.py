"""Judges that other packages bring: found by entry point or dotted path, configured by a class of their own."""

import inspect
import re
from abc import abstractmethod
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import Field, ValidationError

from rc_grpo.config.base import Seconds
from rc_grpo.config.judges.base import JudgeConfig

GROUP = "rc_grpo.judges"
"""Entry-point group; each entry's name is a kind of judge, and it loads to a subclass of `JudgePlugin`."""

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class JudgeKindError(ValueError):
    """No judge is of this kind, or its class cannot be used; the message says which are and the way out."""


class JudgePlugin(JudgeConfig):
    """Base of a judge's configuration that another package brings: its own keys, and how the judge is made.

    Subclasses stay frozen and refuse unknown keys. They are imported wherever a configuration is read, so what is heavy
    (torch, a model) is imported in `make`.
    """

    kind: str = Field(description="name of an entry point of `rc_grpo.judges`, or `package.module:Class`")
    drain_deadline_s: Seconds = Field(20.0, description="time to finish what is under way when stopped")

    @abstractmethod
    def make(self) -> Any:
        """Return the judge, a `reward_service.judge.Judge`; called once, in the process that scores."""

    def check(self) -> None:
        """Look, before anything is started, whether what the judge needs is there; cheaply.

        Raises:
            ValueError: it is not; one line that names the thing and the way out.
        """


def plugin_of(kind: str, built_in: tuple[str, ...]) -> type[JudgePlugin]:
    """Return the configuration class of a kind of judge that is not built in.

    Args:
        kind: name of an entry point of `GROUP`, or a dotted path ``package.module:Class``.
        built_in: names of the kinds that are, for the error.

    Raises:
        JudgeKindError: there is none, or it cannot be used.
    """
    found = [_by_path(kind)] if ":" in kind else [entry for entry in entry_points(group=GROUP) if entry.name == kind]
    if not found:
        raise JudgeKindError(f"no judge is of kind {kind!r}; {_known(built_in)}")
    if len(found) > 1:
        packages = " and ".join(sorted(entry.dist.name if entry.dist else entry.value for entry in found))
        raise JudgeKindError(f"two packages bring a judge of kind {kind!r}: {packages}; uninstall one")
    return _loaded(kind, found[0])


def configured(tree: Mapping[str, Any], built_in: tuple[str, ...]) -> JudgePlugin:
    """Return the configuration of a judge that is not built in, validated by its own class.

    Args:
        tree: plain values with a ``kind``.
        built_in: as of `plugin_of`.

    Raises:
        JudgeKindError: there is no such kind, or its class fails at more than a value.
        pydantic.ValidationError: a key is unknown, or a value does not fit.
    """
    kind = tree["kind"]
    found = plugin_of(kind, built_in)
    try:
        return found.model_validate(tree)
    except ValidationError:
        raise
    except Exception as error:
        # A validator of another's class may raise anything.
        raise JudgeKindError(f"the judge of kind {kind!r} cannot be configured ({_gist(error)})") from error


def _by_path(path: str) -> EntryPoint:
    if _PATH.fullmatch(path) is None:
        raise JudgeKindError(f"kind {path!r} is no dotted path; write package.module:Class")
    return EntryPoint(path, path, GROUP)


def _loaded(kind: str, entry: EntryPoint) -> type[JudgePlugin]:
    origin = "" if entry.dist is None else f" of {entry.dist.name}"
    try:
        found = entry.load()
    except Exception as error:
        # Whatever the import of another's package raises is a judge that is not to be had.
        raise JudgeKindError(
            f"the judge of kind {kind!r}{origin} cannot be loaded from {entry.value!r} "
            f"({_gist(error)}); install its package here and on every node that scores"
        ) from error
    if not (isinstance(found, type) and issubclass(found, JudgePlugin)):
        raise JudgeKindError(
            f"{entry.value!r}{origin} is no subclass of rc_grpo.config.JudgePlugin, which kind {kind!r} must name"
        )
    if not found.model_config.get("frozen") or found.model_config.get("extra") != "forbid":
        raise JudgeKindError(
            f"{entry.value!r}{origin} must stay frozen and forbid unknown keys: leave model_config as it is inherited"
        )
    if inspect.isabstract(found):
        raise JudgeKindError(f"{entry.value!r}{origin} has no method `make` that returns the judge")
    return found


def _known(built_in: tuple[str, ...]) -> str:
    installed = sorted({entry.name for entry in entry_points(group=GROUP)})
    return (
        f"built in: {', '.join(built_in)}; installed: {', '.join(installed) or 'none'}. Install the package that "
        "brings it, here and on every node that scores, or name a class as package.module:Class"
    )


def _gist(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
