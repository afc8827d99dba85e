"""JSON and YAML files of ours, read back: whole and of the form that they were written in, or refused by name.

Between writing and reading lie disks, copies and editors. What a file no longer is, its reader says with the file's
name; an error of Python's from somewhere behind it would name neither the file nor the way out.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from rc_grpo.yaml_text import parse_yaml

_PLAIN: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


class DamagedFileError(ValueError):
    """A file is not what was written; the message names it, what is wrong, and the way out."""


class Form(BaseModel):
    """What a reader counts on in a JSON object. What else is there, of another version, is let be."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def read_bytes(path: Path, way_out: str) -> bytes:
    """Return a file's bytes.

    Args:
        path: of the file.
        way_out: what to do about a damaged one, for the message.

    Raises:
        DamagedFileError: the file system refuses it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or str(error), way_out) from error


def read_json(path: Path, form: type[Form], way_out: str) -> dict[str, Any]:
    """Return the object that a JSON file holds, after it was compared with its form.

    Args:
        path: of the file.
        form: what must be in it.
        way_out: what to do about a damaged one, for the message.

    Raises:
        DamagedFileError: it is not JSON in UTF-8, or not of that form.
    """
    data = read_bytes(path, way_out)
    try:
        return parse_json(data, form)
    except ValueError as error:
        raise damaged(path, str(error), way_out) from error


def parse_json(data: bytes, form: type[Form]) -> dict[str, Any]:
    """Return the object that JSON text holds, after it was compared with its form.

    Raises:
        ValueError: it is not JSON in UTF-8, or not of that form; says what is wrong, in a line.
    """
    try:
        found: dict[str, Any] = json.loads(data)
        # The escape of half an emoji is JSON, and no UTF-8.
        json.dumps(found, ensure_ascii=False).encode()
        form.model_validate(found)
    except ValidationError as error:
        raise ValueError(_first(error)) from error
    # Thousands of digits are a ValueError, thousands of brackets a RecursionError.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {_in_words(error)}") from error
    return found


def read_yaml(path: Path, form: type[Form], way_out: str) -> dict[str, Any]:
    """Return the mapping that a YAML file of ours holds: of plain values with text for keys, as JSON has them.

    Args:
        path: of the file.
        form: what must be in it.
        way_out: what to do about a damaged one, for the message.

    Raises:
        DamagedFileError: it is not that.
    """
    data = read_bytes(path, way_out)
    try:
        found = parse_yaml(data.decode("utf-8-sig"))
        json.dumps(_PLAIN.validate_python(found), ensure_ascii=False).encode()
        form.model_validate(found)
    except ValidationError as error:
        raise damaged(path, _first(error), way_out) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, _in_words(error), way_out) from error
    plain: dict[str, Any] = found
    return plain


def damaged(where: object, reason: str, way_out: str) -> DamagedFileError:
    """Return what is said of a damaged file."""
    return DamagedFileError(f"{where} is damaged ({reason}); {way_out}")


def _first(error: ValidationError) -> str:
    """Return the first of what a form complains about; the others are mostly of one cause."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    said = f"{place}: {problem['msg']}" if place else problem["msg"]
    return said.encode("utf-8", "backslashreplace").decode()[:300]


def _in_words(error: BaseException) -> str:
    said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return said.encode("utf-8", "backslashreplace").decode()[:300]
