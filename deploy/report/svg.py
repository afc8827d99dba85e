"""Charts as SVG in the page's own colours: matplotlib draws, the style sheet says which colour is which.

An SVG from matplotlib names its colours. Here each is one of a few keys, replaced by a variable of the style sheet, so
that one drawing serves light and dark; the font is the page's.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLOURS = 8
"""Of series, and as many of phases, that the style sheet has."""

INK, LINE = "#0a00f0", "#0a00f1"
POINTS_READ = 400
"""A chart's numbers for the pointer are thinned to so many a series."""

SIZE, WIDE = (4.7, 2.5), (6.6, 3.0)
_VARIABLES = {INK: "quiet", LINE: "line"} | {
    f"#0a00{group}{index:x}": f"{name}-{index}"
    for group, name in ((0, "series"), (1, "phase"))
    for index in range(COLOURS)
}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "path.simplify_threshold": 0.3,
}


@dataclass(frozen=True)
class Chart:
    """A drawing and what the page says with it.

    Attributes:
        title: above it.
        svg: the drawing, in the page's colours.
        alt: what it shows, in words.
        data: for the pointer: ``box`` of the axes as shares of the drawing (left, top, width, height), ``limits`` of x,
            ``x`` a word for it, and ``series`` of label, colour and points.
    """

    title: str
    svg: Markup
    alt: str
    data: dict[str, Any] = field(default_factory=dict)


def colour(index: int, kind: int = 0) -> str:
    """Return the key of a series' colour (``kind`` 0) or of a phase's (1); there are `COLOURS` of each."""
    return f"#0a00{kind}{index % COLOURS:x}"


def variable(index: int, kind: int = 0) -> str:
    """Return the name of the style sheet's variable of that colour."""
    return f"--{_VARIABLES[colour(index, kind)]}"


@contextmanager
def drawing(key: str, size: tuple[float, float] = SIZE) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure to draw on.

    Args:
        key: unique on the page, as names within an SVG are names in the page.
        size: in inches; on the page the drawing is as wide as its place.
    """
    with mpl.rc_context(_STYLE | {"svg.hashsalt": key}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots()


def finish(figure: Figure, axes: Axes, title: str, alt: str, x: str, series: Sequence[dict[str, Any]] = ()) -> Chart:
    """Turn a figure into a chart; to be called within `drawing`.

    Args:
        figure: drawn.
        axes: its only ones.
        title: above it.
        alt: what it shows, in words.
        x: what the x axis counts, for the pointer.
        series: of `readable`.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    box = axes.get_position()
    limits = [float(limit) for limit in axes.get_xlim()]
    data = {"box": [box.x0, 1 - box.y1, box.width, box.height], "limits": limits, "x": x, "series": list(series)}
    return Chart(title, _in_the_pages_style(buffer.getvalue()), alt, data)


def readable(label: str, index: int, x: NDArray[Any], y: NDArray[np.float64], kind: int = 0) -> dict[str, Any]:
    """Return a series for the pointer, thinned and rounded to four digits."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS_READ)).round().astype(int))
    kept = kept[np.isfinite(y[kept])]
    points = [[float(f"{value:.4g}") for value in values[kept]] for values in (x, y)]
    return {"label": label, "colour": variable(index, kind), "x": points[0], "y": points[1]}


def _in_the_pages_style(text: str) -> Markup:
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    # Names of groups are the same in every drawing; those of clips and markers are hashes, and are referred to.
    text = re.sub(r'<g id="[\w.]+"', "<g", text)
    text = re.sub(r"<g/>", "", text)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    opening, _, rest = text[text.index("<svg") :].partition(">")
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    text = f'{opening} aria-hidden="true">{rest}'
    for key, name in _VARIABLES.items():
        text = text.replace(key, f"var(--{name})")
    # matplotlib escapes what it writes as text; all else is its own.
    return Markup(re.sub(r"\n\s*", "\n", text))
