"""The column map: our field names against those of a file."""

from collections.abc import Iterable, Mapping

from rc_grpo.data.errors import DataError

FIELDS = ("task_id", "kind", "source", "instruction", "mask", "target", "caption")
"""What a task is made of."""

REQUIRED = ("source", "instruction")
"""Fields without which there is no task. The mask is not among them: it may be the source's alpha channel."""


def resolve_columns(mapping: Mapping[str, str], present: Iterable[str], where: str) -> dict[str, str]:
    """Return field -> column for every field that the file has; an unmapped field is looked for under its own name.

    Args:
        mapping: of the config, our field name -> column name.
        present: the columns there are.
        where: the file, for the message.

    Raises:
        DataError: the map names an unknown field or column, or a required field has no column.
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
    resolved = {field: mapping.get(field, field) for field in FIELDS if mapping.get(field, field) in columns}
    for field in REQUIRED:
        if field not in resolved:
            raise DataError(
                f"{where} has no column for {field!r}; {listed}. "
                f"Name it in the column map: columns: {{{field}: COLUMN}}"
            )
    return resolved
