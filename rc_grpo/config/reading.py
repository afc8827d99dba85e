"""YAML as a person writes it: what cannot be read is said in one line, with where it is."""

from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """The configuration is not usable; the message names the key and the way out."""


class _Loader(yaml.SafeLoader):
    """Knows where a value is that is none, and refuses a key that is there twice, of which YAML keeps the last."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
            # A date that is none, or a tag that does not fit.
            kind = node.tag.rpartition(":")[2]
            said = f"{str(node.value)[:40]!r} is no {kind} ({error})"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text.

    Args:
        text: a document.
        where: what holds it, to be named in an error: a file, or an option as it was given.

    Raises:
        ConfigError: it is no YAML, holds a key twice, or asks for more than plain values; with line and column.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        said = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{where}{place}: not YAML: {said}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{where}, line {line}: not YAML: {error.reason}: {_shown(error.character)}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: not a configuration: it is nested too deeply") from error


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


def _shown(character: Any) -> str:
    return f"#x{character:x}" if isinstance(character, int) else repr(character)
