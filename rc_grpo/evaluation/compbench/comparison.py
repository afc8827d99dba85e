"""Editors side by side: what was measured of each on one benchmark, and beside it what the paper published of it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rc_grpo.evaluation.compbench.paper import published
from rc_grpo.evaluation.compbench.scores import METRICS
from rc_grpo.evaluation.compbench.table import cell
from rc_grpo.kept import Form, read_json

SUMMARY = "summary.json"
"""Of a model's folder: what was measured of it."""


class _Means(Form):
    expected: int
    measured: int
    official: dict[str, float | str | None]


class _Summary(Form):
    benchmark: str
    model: str
    measured_with: dict[str, Any]
    whole: bool
    overall: _Means


@dataclass(frozen=True)
class Editor:
    """A row.

    Attributes:
        name: of the model, or the paper's method.
        origin: ``measured``, with how many samples of how many, or ``published``.
        values: one for each of `METRICS`, the benchmark's official means.
    """

    name: str
    origin: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """All editors of a folder of results that were measured alike.

    Attributes:
        editors: each model, followed by its published row where the paper has one.
        left_out: model -> why its numbers do not compare.
        parts: models whose benchmark was not whole.
    """

    editors: tuple[Editor, ...]
    left_out: Mapping[str, str]
    parts: tuple[str, ...]

    @classmethod
    def read(cls, results: Path, model: str) -> "Comparison":
        """Read the summaries of a folder of results.

        Args:
            results: ``editing_results``, with a folder for each model.
            model: whose benchmark and measuring models all others must have.

        Raises:
            DamagedFileError: that model's own summary is not what was written.
        """
        own = _read(results / model / SUMMARY)
        editors: list[Editor] = []
        left_out: dict[str, str] = {}
        parts: list[str] = []
        for path in sorted(results.glob(f"*/{SUMMARY}"), key=lambda path: path.parent.name.casefold()):
            name = path.parent.name
            try:
                summary = _read(path)
            except ValueError as error:
                left_out[name] = str(error)
                continue
            if difference := _difference(own, summary):
                left_out[name] = difference
                continue
            editors += _rows(name, summary)
            if not summary["whole"]:
                parts.append(name)
        return cls(tuple(editors), left_out, tuple(parts))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the table's cells: editor, origin, then a number for each of `METRICS`."""
        for editor in self.editors:
            yield editor.name, editor.origin, *(cell(value) for value in editor.values)

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each thing that a reader of the table must know."""
        if self.parts:
            yield f"Not whole, and so not comparable with the others: {', '.join(self.parts)}."
        for name, reason in self.left_out.items():
            yield f"Left out: {name}: {reason}"

    def markdown(self) -> str:
        """Return the table in Markdown."""
        header = ("editor", "origin", *METRICS.values())
        lines = [header, ("---",) * len(header), *self.rows()]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return table + "".join(f"\n{remark}\n" for remark in self.remarks())


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, _Summary, "measure that model again, with rc-grpo evaluate --compbench")


def _difference(own: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return why two summaries' numbers do not compare; None where they do."""
    if own["benchmark"] != other["benchmark"]:
        return f"it was measured on {other['benchmark']}"
    mine, its = (
        (summary["measured_with"].get("clip"), summary["measured_with"].get("lpips")) for summary in (own, other)
    )
    if mine != its:
        return "it was measured with other models (--clip, LPIPS); measure it again"
    return None


def _rows(name: str, summary: Mapping[str, Any]) -> Iterator[Editor]:
    means = summary["overall"]
    values = means["official"]
    yield Editor(
        name,
        f"measured, {means['measured']}/{means['expected']}",
        tuple(math.nan if values.get(metric) is None else float(values[metric]) for metric in METRICS),
    )
    if row := published(name):
        yield Editor(row.method, "published", tuple(getattr(row, metric) for metric in METRICS))
