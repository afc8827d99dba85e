"""The column map: our field names against those of a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rc_grpo.data.errors import DataError
from rc_grpo.data.formats.presets import Preset, hint, told_by

FIELDS = ("task_id", "kind", "source", "instruction", "mask", "target", "caption", "references", "phrase")
"""What a task is made of. ``references`` is a list of images; ``phrase``, what to look for, is for `rc-grpo masks`."""

REQUIRED = ("source", "instruction")
"""Fields without which there is no task. The mask is not among them: it may be the source's alpha channel."""

WHERE = "the column map (data.train.columns, data.heldout.columns, or --column of rc-grpo masks)"


@dataclass(frozen=True)
class Columns:
    """Which column has which field, and how its cells are read.

    Attributes:
        of: field -> column, for every field that the file has.
        preset: the public data set whose layout the file has, if it is one's.
        preset_fields: the fields whose column the preset named.
    """

    of: Mapping[str, str]
    preset: Preset | None = None
    preset_fields: frozenset[str] = frozenset()

    def values(self, cells: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Return a row's values by our field names, and what is wrong with one of them."""
        values, fault = {}, None
        for field, column in self.of.items():
            values[field] = cells.get(column)
            if self.preset is not None and field in self.preset_fields:
                try:
                    values[field] = self.preset.read(field, values[field])
                except ValueError as error:
                    values[field], fault = None, str(error)
        return values, fault


def resolve_columns(mapping: Mapping[str, str], present: Iterable[str], where: str) -> Columns:
    """Return the columns of a file. A field that is not mapped is looked for where a preset has it, or by its own name.

    Args:
        mapping: of the config, our field name -> column name.
        present: the columns there are.
        where: the file, for the message.

    Raises:
        DataError: the map names an unknown field or column, a required field has no column, or one of two might be it.
    """
    columns = sorted(set(present))
    listed = f"the columns there are: {', '.join(columns) or 'none'}"
    for field, column in mapping.items():
        if field not in FIELDS:
            raise DataError(
                f"the column map has {field!r}, which is no field of a task; fields are {', '.join(FIELDS)}"
            )
        if column not in columns:
            raise DataError(f"{where} has no column {column!r} (mapped to {field!r}); {listed}")
    preset = _preset(mapping, columns, where, listed)
    told = {} if preset is None else {field: name for field, name in preset.columns.items() if field not in mapping}
    told = {field: column for field, column in told.items() if column in columns}
    named = {field: field for field in FIELDS if field in columns}
    found = named | told | dict(mapping)
    for field in REQUIRED:
        if field not in found:
            raise DataError(
                f"{where} has no column for {field!r}; {listed}. "
                f"Name it in {WHERE}: columns: {{{field}: COLUMN}}{hint(columns)}"
            )
    return Columns({field: found[field] for field in FIELDS if field in found}, preset, frozenset(told))


def _preset(mapping: Mapping[str, str], columns: list[str], where: str, listed: str) -> Preset | None:
    """Return the preset of a file, unless the map has every field that it would name."""
    presets = [preset for preset in told_by(columns) if preset.columns.keys() - mapping.keys()]
    if not presets:
        return None
    if len(presets) > 1:
        wanted = sorted({field for preset in presets for field in preset.columns.keys() - mapping.keys()})
        raise DataError(
            f"{where} has the columns of {' and of '.join(preset.name for preset in presets)}; say which are meant in "
            f"{WHERE} ({', '.join(wanted)}); {listed}"
        )
    (preset,) = presets
    for field, column in preset.columns.items():
        if field not in mapping and field != column and field in columns and column in columns:
            raise DataError(
                f"{where} is laid out as {preset.name}, whose {field} is {column!r}, and has a column {field!r}, too; "
                f"say which is meant in {WHERE}: columns: {{{field}: COLUMN}}; {listed}"
            )
    return preset
