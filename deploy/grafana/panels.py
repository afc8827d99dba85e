"""What a panel of the dashboard is, and how it names the metrics of `deploy.observability.table`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deploy.observability.table import BY_SHORT_NAME

RANGE = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    """One expression of PromQL, and what its lines are called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: above it.
        says: in a sentence, what to look for.
        unit: by Grafana's names.
        queries: of its lines.
        kind: of panel.
        stacked: lines are parts of a whole.
    """

    title: str
    says: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False


def series(short: str, part: str = "", also: str = "") -> str:
    """Return the selector of a metric of the chosen run.

    Args:
        short: name of the metric in the table.
        part: ``_bucket`` and the like, of a histogram.
        also: further matchers.

    Raises:
        KeyError: no such metric is exported.
    """
    matchers = ", ".join(filter(None, ('run="$run"', also)))
    return f"{BY_SHORT_NAME[short].prometheus}{part}{{{matchers}}}"


def rate(short: str, by: str = "", part: str = "", also: str = "") -> str:
    """Return a counter's increase a second, summed by a label over the drivers that the run has had."""
    return f"sum by ({by}) (rate({series(short, part, also)}[{RANGE}]))"


def chart(title: str, unit: str, says: str, *queries: tuple[str, str], stacked: bool = False) -> Panel:
    """Return a panel of lines over time, of expressions and what their lines are called."""
    return Panel(title, says, unit, tuple(Query(*query) for query in queries), stacked=stacked)


def figure(title: str, unit: str, says: str, expression: str) -> Panel:
    """Return a panel of one number."""
    return Panel(title, says, unit, (Query(expression, ""),), kind="stat")


def each(label: str, named: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Return queries of metrics that share a label, by what their lines are called before it."""
    return [(series(short), f"{words} {{{{{label}}}}}".strip()) for short, words in named.items()]
