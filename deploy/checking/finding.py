"""What a check found, and how a check that raises becomes a finding."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.errors import mendable

State = Literal["fine", "note", "fault"]
_STYLES: dict[State, str] = {"fine": "green", "note": "yellow", "fault": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that is known of a run.

    Attributes:
        subject: what was looked at: a branch of the configuration, or ``machine``.
        state: ``fine``; a ``note``, with which a run starts; or a ``fault``, with which it would not, or in vain.
        said: in words, on one line, with the way out of a fault.
        figures: what was measured, by name.
    """

    subject: str
    state: State
    said: str
    figures: Mapping[str, float] = field(default_factory=dict)


def tried(subject: str, look: Callable[[], Finding]) -> Finding:
    """Return what ``look`` finds; an error that the user can mend is a fault."""
    try:
        return look()
    except mendable() as error:
        return Finding(subject, "fault", str(error))


def finding(subject: str, look: Callable[[], str]) -> Finding:
    """Return what ``look`` says as fine; an error that the user can mend is a fault."""
    return tried(subject, lambda: Finding(subject, "fine", look()))


def faults(found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield those with which a run would not start."""
    return (item for item in found if item.state == "fault")


def draw(found: Iterable[Finding]) -> RenderableType:
    """Return findings as a table; what others wrote is not taken for markup."""
    items = list(found)
    table = Table(expand=True)
    table.add_column("what", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", ratio=1, overflow="fold")
    for item in items:
        table.add_row(Text(item.subject), Text(item.state, _STYLES[item.state]), Text(item.said))
    count = sum(1 for _ in faults(items))
    verdict = "nothing is in the way of this run" if not count else f"{count} in the way of this run"
    return Group(table, Text(verdict, "bold red" if count else "green"))


def show(found: Sequence[Finding], console: Console, *, machine_readable: bool) -> bool:
    """Print findings as a table or as JSON; tell whether nothing is in the way."""
    if machine_readable:
        console.print(in_json(found), markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(draw(found))
    return not any(faults(found))


def in_json(found: Iterable[Finding]) -> str:
    """Return `as_json` as text."""
    return json.dumps(as_json(found), indent=2)


def as_json(found: Iterable[Finding]) -> dict[str, Any]:
    """Return findings for JSON: ``ready``, and each with its fields."""
    items = list(found)
    return {"ready": not any(faults(items)), "findings": [asdict(item) for item in items]}
