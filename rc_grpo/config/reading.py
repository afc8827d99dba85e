"""YAML as a person writes it: what cannot be read is said in one line, with where it is."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rc_grpo.yaml_text import YamlError, parse_yaml


class ConfigError(ValueError):
    """The configuration is not usable; the message names the key and the way out."""


def in_lines(error: ValidationError, whole: str) -> str:
    """Return what does not fit, a line for each key; ``whole`` stands for a fault of no key in particular."""
    return "\n".join(
        f"  {'.'.join(str(part) for part in problem['loc']) or whole}: {problem['msg']}" for problem in error.errors()
    )


def read_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text.

    Args:
        text: a document.
        where: what holds it, to be named in an error: a file, or an option as it was given.

    Raises:
        ConfigError: it is no YAML, holds a key twice, or asks for more than plain values; with line and column.
    """
    try:
        return parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{where}{error.place}: {error.reason}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8 or not YAML, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; save it as UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    tree = read_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping (key: value), not {_kind(tree)}")
    if odd := next((key for key in tree if not isinstance(key, str)), None):
        raise ConfigError(f"{path}: the key {odd!r} is no name; write it as text")
    return tree


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
