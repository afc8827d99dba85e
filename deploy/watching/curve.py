"""A curve in one line of a terminal."""

import math
from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"


def curve(values: Sequence[float], width: int) -> str:
    """Draw values from left to right, the lowest as the lowest block and the highest as the highest.

    Args:
        values: one an update; NaN leaves its place empty.
        width: columns at most; of more values, neighbours are averaged.

    Returns:
        The blocks between the first and the last value; empty where there is no number.
    """
    columns = min(width, len(values))
    ends = [round(column * len(values) / columns) for column in range(columns + 1)] if columns else []
    means = [_mean(values[start:end]) for start, end in pairwise(ends)]
    numbers = [mean for mean in means if not math.isnan(mean)]
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    drawn = "".join(" " if math.isnan(mean) else _BLOCKS[round((mean - low) * scale)] for mean in means)
    return f"{numbers[0]:.3f} {drawn} {numbers[-1]:.3f}"


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan
