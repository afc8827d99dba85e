"""What one exported metric is: its names, and which of a run's figures it takes."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

PREFIX = "rc_grpo_"
RAY_PREFIX = "ray_"
"""Ray puts it before every name that a program gives a metric."""
Kind = Literal["gauge", "counter", "histogram"]
_TAG = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Source:
    """Figures that a metric takes.

    Attributes:
        pattern: their name, as `metrics.jsonl` has it or as `deploy.observability.figures` makes it; ``{tag}`` stands
            for the value of a tag.
        tags: that all of them have.
        live: they are refreshed every second, not once an update.
    """

    pattern: str
    tags: dict[str, str] = field(default_factory=dict)
    live: bool = False

    def match(self, name: str) -> dict[str, str] | None:
        """Return the tags of a figure, or None where it is another's."""
        found = self._compiled.fullmatch(name)
        return None if found is None else found.groupdict() | self.tags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        # Odd parts are tags' names. What a tag stands for may hold anything but a slash.
        parts = _TAG.split(self.pattern)
        return re.compile("".join(f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        short: its name without prefixes, by Prometheus' conventions: base units; counters end in ``_total``.
        kind: a gauge is set to a figure, a counter is raised by it, a histogram counts it.
        unit: of its value.
        help: what it is, in a line.
        sources: the figures that it takes.
        tags: beside ``run``.
        buckets: upper bounds of a histogram.
    """

    short: str
    kind: Kind
    unit: str
    help: str
    sources: tuple[Source, ...]
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """As it is given to Ray."""
        return PREFIX + self.short

    @property
    def prometheus(self) -> str:
        """As Prometheus scrapes it, and as dashboards and alerts name it."""
        return RAY_PREFIX + self.name

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the series that it becomes in Prometheus."""
        if self.kind == "histogram":
            return tuple(f"{self.prometheus}_{part}" for part in ("bucket", "sum", "count"))
        return (self.prometheus,)
