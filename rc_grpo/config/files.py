"""Configurations as files: YAML in, overrides, ``extends``, YAML out."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rc_grpo.config.reading import ConfigError, in_lines, read_mapping, read_yaml
from rc_grpo.config.run import RunConfig

NAME_AT_MOST = 200
"""Characters of a configuration's name; file systems take no much longer ones."""


def load(source: Path, overrides: tuple[str, ...] = (), library: Path | None = None) -> RunConfig:
    """Read a YAML file and what it extends, apply ``a.b=c`` overrides (values in YAML), validate.

    A file may name another with ``extends: NAME``; sections are merged key by key, and ``null`` takes a key away.

    Args:
        source: the file.
        overrides: in the order in which they are applied.
        library: folder in which ``extends`` finds ``NAME.yaml`` when it does not lie beside the file.

    Raises:
        ConfigError: a file is missing, no YAML or no mapping, an override is malformed, a key unknown or a value unfit.
    """
    tree = _read(source, library, ())
    for override in overrides:
        _apply(tree, override)
    return parse(tree)


def parse(tree: dict[str, Any]) -> RunConfig:
    """Validate a plain mapping, as read from YAML or from a run's ``config.yaml``."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("the configuration does not fit:\n" + in_lines(error, "config")) from error


def dump(config: RunConfig) -> str:
    """Return the whole resolved configuration as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read(source: Path, library: Path | None, readers: tuple[Path, ...]) -> dict[str, Any]:
    if not source.is_file():
        raise ConfigError(f"no config file at {source}" + (f", which {readers[-1]} extends" if readers else ""))
    if source.resolve() in readers:
        raise ConfigError(f"{source} extends itself by way of {readers[-1]}")
    tree = read_mapping(source)
    extended = tree.pop("extends", None)
    if extended is None:
        return tree
    if not isinstance(extended, str) or not Path(extended).name or len(extended) > NAME_AT_MOST:
        raise ConfigError(f"{source}: extends names a configuration, and {extended!r:.60} is none")
    beside = source.parent / Path(extended).with_suffix(".yaml")
    found = beside if beside.is_file() or library is None else library / f"{extended}.yaml"
    return _merged(_read(found, library, (*readers, source.resolve())), tree)


def _merged(base: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _apply(tree: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator or not all(part.strip() for part in path.split(".")):
        raise ConfigError(f"--set takes a.b=value, not {override!r}")
    *parents, leaf = path.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} holds a value, not a section")
        node = child
    node[leaf] = read_yaml(value, f"the value of --set {override!r}")
