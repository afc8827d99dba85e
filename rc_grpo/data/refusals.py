"""The unusable tasks of a data set, told together: how many, which, where and why."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 10
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|\S*/\S*|\d+(\.\d+)?")
"""What differs among reasons of one kind: what is quoted, in brackets, a path or a number."""

_WAY_OUT = "Mend the data, or set on_bad_task: skip to leave such tasks out"


@dataclass(frozen=True)
class Refusal:
    """A task that is unusable, why, and where it stands (file and row)."""

    task_id: str
    reason: str
    place: str

    def __str__(self) -> str:
        return f"task {self.task_id!r} ({self.place}): {self.reason}"


def in_words(refused: Sequence[Refusal], checked: int, where: str) -> str:
    """Return the message about unusable tasks: each kind of fault, the first ten in full.

    Args:
        refused: at least one.
        checked: how many tasks were looked at.
        where: the data set.
    """
    if len(refused) == 1:
        return f"{refused[0]}. {_WAY_OUT}"
    kinds = by_kind(refused)
    lines = [f"{where}: {len(refused)} of {checked} tasks are unusable. {_WAY_OUT}"]
    left = min(_SHOWN, len(refused))
    for number, kind in enumerate(kinds):
        # Every kind is shown once before one of them is shown twice, as far as ten go.
        shown = kind[: max(1, left - (len(kinds) - number - 1))] if left else []
        left -= len(shown)
        lines += [f"  {refusal}" for refusal in shown]
        if hidden := len(kind) - len(shown):
            lines.append(f"  {'and ' if shown else ''}{hidden} more like {kind[0].task_id!r}: {kind[0].reason}")
    return "\n".join(lines)


def by_kind(refused: Sequence[Refusal]) -> list[list[Refusal]]:
    """Return the refusals whose reasons differ in names and numbers alone together, the commonest kind first."""
    kinds: dict[str, list[Refusal]] = {}
    for refusal in refused:
        kinds.setdefault(_PARTICULAR.sub("_", refusal.reason), []).append(refusal)
    return sorted(kinds.values(), key=len, reverse=True)
