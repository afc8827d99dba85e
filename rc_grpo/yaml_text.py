"""YAML of plain values, and what is wrong with text that is none: in one line, with where it is."""

from typing import Any

import yaml


class YamlError(ValueError):
    """Text that is no YAML of plain values.

    Args:
        reason: in one line.
        line: from 1; None where the parser does not say.
        column: from 1; None likewise.
    """

    def __init__(self, reason: str, line: int | None = None, column: int | None = None) -> None:
        where = "" if line is None else f", line {line}"
        self.place = where if column is None else f"{where}, column {column}"
        """Behind the name of what holds the text."""
        self.reason = reason
        super().__init__(f"{self.place.removeprefix(', ')}: {reason}".removeprefix(": "))


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


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        YamlError: it is no YAML, holds a key twice, or asks for more than plain values.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, (error.context, error.problem)))
        place = () if mark is None else (mark.line + 1, mark.column + 1)
        raise YamlError(f"not YAML: {said}", *place) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"not YAML: {error.reason}: {_shown(error.character)}", line) from error
    except RecursionError as error:
        raise YamlError("not YAML that is read: it is nested too deeply") from error


def _shown(character: Any) -> str:
    return f"#x{character:x}" if isinstance(character, int) else repr(character)
