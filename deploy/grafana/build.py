"""Writes the dashboard for Grafana, and the table of metrics in the README: ``python -m deploy.grafana.build``."""

import json
from pathlib import Path
from typing import Any

from deploy.grafana.panels import Panel
from deploy.grafana.rows import ROWS
from deploy.observability.table import BY_SHORT_NAME, as_markdown

HERE = Path(__file__).parent
DASHBOARD = HERE / "rc_grpo.json"
README = HERE / "README.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- metrics -->\n", "<!-- /metrics -->\n"
UID = "rcGrpoDashboard"
_WIDTH = 24
_SIZES = {"stat": (4, 4), "timeseries": (8, 8)}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_RUNS = f"label_values({BY_SHORT_NAME['updates_planned'].prometheus}, run)"


def dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's schema."""
    return {
        "title": "RC-GRPO",
        "uid": UID,
        "tags": ["ray", "rc-grpo"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "annotations": {"list": []},
        "templating": {"list": _variables()},
        "panels": _placed(),
    }


def table_of(text: str) -> tuple[str, str, str]:
    """Return what stands before, in and after a README's table of metrics."""
    before, rest = text.split(TABLE_BEGINS)
    table, after = rest.split(TABLE_ENDS)
    return before, table, after


def as_json() -> str:
    """Return the dashboard as the file that is shipped."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source", "refresh": 1},
        {
            "name": "run",
            "type": "query",
            "label": "Run",
            "datasource": _SOURCE,
            "query": {"query": _RUNS, "refId": "run"},
            "refresh": 2,
            "sort": 1,
        },
        {
            "name": "peak_tflops",
            "type": "textbox",
            "label": "Peak of a GPU, TFLOP/s",
            "query": "989",
            "current": {"text": "989", "value": "989"},
        },
    ]


def _placed() -> list[dict[str, Any]]:
    """Return rows and panels with their places, left to right and down."""
    placed: list[dict[str, Any]] = []
    top = 0
    for title, panels in ROWS.items():
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        placed.append({"id": len(placed) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place})
        top += 1
        left = height = 0
        for panel in panels:
            width, height = _SIZES[panel.kind]
            if left + width > _WIDTH:
                left, top = 0, top + height
            place = {"h": height, "w": width, "x": left, "y": top}
            placed.append(_drawn(panel, len(placed) + 1) | {"gridPos": place})
            left += width
        top += height
    return placed


def _drawn(panel: Panel, number: int) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 60 if panel.stacked else 0, "showPoints": "auto", "spanNulls": True}
    if panel.stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    if panel.kind == "stat":
        custom, options = {}, {"reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def main() -> None:
    """Write both files."""
    DASHBOARD.write_text(as_json())
    before, _, after = table_of(README.read_text())
    README.write_text(before + TABLE_BEGINS + as_markdown() + TABLE_ENDS + after)


if __name__ == "__main__":
    main()
