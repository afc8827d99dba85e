"""Templates of pages, and how they write numbers."""

import math

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from deploy.report.heldout import Change
from deploy.report.measures import title
from deploy.report.svg import variable
from rc_grpo.evaluation.compbench.table import cell


def environment(*packages: str) -> Environment:
    """Return the templates of packages: what is filled in is escaped, and what is missing is an error.

    Args:
        packages: each with a folder ``templates``; one that comes first is looked into first.
    """
    templates = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": number,
        "difference": difference,
        "cell": cell,
        "measure": title,
        "minus": minus,
        "apart": apart,
    }
    templates.globals |= {"variable": variable}
    return templates


def number(value: float, digits: int = 4) -> str:
    """Return a number for a table; a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:#.{digits}g}".removesuffix(".")


def apart(values: tuple[float, float]) -> str:
    """Return two numbers with an arrow between, with as many digits as it takes to see them differ, at most ten."""
    before, after = values
    if math.isfinite(before) and math.isfinite(after) and before != after:
        digits = 1 + math.ceil(math.log10(max(abs(before), abs(after)) / abs(after - before)))
        digits = min(10, max(4, digits))
        return f"{number(before, digits)} → {number(after, digits)}"
    return f"{number(before)} → {number(after)}"


def minus(text: str) -> str:
    """Return a number's text with a minus sign that is as wide as its plus."""
    return text.replace("-", "−", 1) if text.startswith("-") else text


def difference(change: Change) -> str:
    """Return a difference with its sign, to the second digit of its standard error."""
    if not change.error > 0:
        return f"{change.difference:+.4g}"
    return f"{change.difference:+.{max(0, 1 - math.floor(math.log10(change.error)))}f}"
