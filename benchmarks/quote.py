"""Quotes figures from ``benchmarks/results`` in the README and the docs, so that no number there is typed by hand.

A number followed by ``<!--NAME:KEY-->`` is a figure's value, rounded to as many decimals as are written, its thousands
apart if they are (``70,449``); a KEY with dots in it is a path into the result's detail. A text from ``*measured*`` to
``<!--measured:NAME-->`` says when, by what command and on which machine NAME's figures came about:

    python -m benchmarks.quote            # write the current figures
    python -m benchmarks.quote --check    # say which differ, exit 1 if any
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER

MEASURED = re.compile(r"\*measured\*[^*\n]*?(?P<mark><!--measured:(?P<name>\w+)-->)")
ROOT = Path(__file__).parent.parent
QUOTE = re.compile(
    r"(?P<number>[+-]?\d+(?:,\d{3})*(?:\.(?P<decimals>\d+))?)(?P<mark><!--(?!measured:)(?P<name>\w+):(?P<key>[^<>]+)-->)"
)


def figure(name: str, key: str) -> float:
    """Return one measured value.

    Raises:
        KeyError: there is no such result or figure.
    """
    result = _result(name)
    if "." not in key:
        return float(result["figures"][key]["value"])
    value = result["detail"]
    for part in key.split("."):
        value = value[part]
    return float(value)


def requote(text: str) -> str:
    """Return a text with every quoted figure at its current value, and every origin as it is on record."""

    def current(match: re.Match[str]) -> str:
        decimals, apart = len(match["decimals"] or ""), "," if "," in match["number"] else ""
        return f"{figure(match['name'], match['key']):{apart}.{decimals}f}{match['mark']}"

    def origin(match: re.Match[str]) -> str:
        result = _result(match["name"])
        return f"*measured* {result['date'][:10]} by `{result['command']}`, {result['machine']}{match['mark']}"

    return MEASURED.sub(origin, QUOTE.sub(current, text))


def _result(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        raise KeyError(f"no result {path}")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def quoting_files() -> list[Path]:
    """Return the files that may quote figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    """Write or check the quotes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path in quoting_files() if requote(path.read_text()) != path.read_text()]
    for path in stale:
        print(f"{'stale' if check else 'updated'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(requote(path.read_text()))
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
