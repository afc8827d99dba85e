"""A submitted run as its operator sees it: in Ray's own dashboard, and every panel of ours out of a real Prometheus.

Grafana itself is not needed: what its panels would ask is asked of Prometheus, and drawn.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import matplotlib.pyplot as plt
import pytest

from benchmarks.runs import records_of
from deploy.grafana.panels import RANGE, Panel
from deploy.grafana.rows import ROWS
from tests.browser.chromium import CHROMIUM, chromium
from tests.integration.ray_nodes import PLACED, RayNodes, eventually, free_port, three_nodes
from tests.integration.test_driver import settings

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus (Debian: apt-get install prometheus)"),
]
RUN = "watched"
WATCHED_S = 120
NOT_HERE = {
    "GPUs, as Ray's nodes see them": "no GPU",
    "Judges' servers": "the judge is the ground truth, in its actor",
    "Judges' key-value caches": "the judge is the ground truth, in its actor",
    "Scores that failed": "no score failed",
}
Lines = list[tuple[str, list[float], list[float]]]


@contextmanager
def prometheus(nodes: RayNodes, folder: Path) -> Iterator[str]:
    """Run Prometheus as the README says, with our rules beside Ray's configuration."""
    metrics = nodes.temporary / "head" / "session_latest" / "metrics"
    subprocess.run([sys.executable, "-m", "deploy.grafana.install", str(metrics)], check=True)
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file", str(metrics / "prometheus" / "prometheus.yml")]
    command += [f"--web.listen-address={address}", f"--storage.tsdb.path={folder / 'series'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def asked(url: str, what: str, **parameters: Any) -> Any:
    answer = httpx.get(f"{url}/api/v1/{what}", params=parameters, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def lines_of(url: str, panel: Panel, begin: float) -> Lines:
    lines: Lines = []
    for query in panel.queries:
        expression = query.expression.replace("$run", RUN).replace(RANGE, "40s").replace("$peak_tflops", "1")
        found = asked(url, "query_range", query=expression, start=begin, end=time.time(), step=5)["result"]
        for series in found:
            label = query.legend
            for name, value in series["metric"].items():
                label = label.replace(f"{{{{{name}}}}}", value)
            at, values = zip(*((float(x) - begin, float(y)) for x, y in series["values"]), strict=True)
            lines.append((label, list(at), list(values)))
    return lines


def draw(panels: dict[str, Lines], file: Path) -> None:
    columns = 4
    figure, grid = plt.subplots(-(-len(panels) // columns), columns, figsize=(22, 40), constrained_layout=True)
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        for label, at, values in lines:
            axes.plot(at, values, label=label, marker=".", markersize=3)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        if any(label for label, *_ in lines):
            axes.legend(fontsize=6)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(file, dpi=60)
    plt.close(figure)


def photograph(page: Any, nodes: RayNodes, place: str, words: tuple[str, ...], file: Path) -> None:
    page.goto(f"{nodes.url}/#/{place}")
    for word in words:
        page.get_by_text(word).first.wait_for(timeout=60_000)
    # The dashboard's own animations.
    page.wait_for_timeout(1500)
    page.screenshot(path=str(file))


def test_operators_see_job_actors_and_every_panel_of_a_submitted_run(tmp_path: Path) -> None:
    pictures = Path(os.environ.get("DASHBOARD_SCREENSHOTS", tmp_path))
    folder = tmp_path / RUN
    options = (*PLACED, "loop.updates=2000", "evaluation.tasks=2", "evaluation.every=20", "rollout.workers=2")
    with three_nodes(tmp_path) as nodes, prometheus(nodes, tmp_path) as url, chromium() as browser:
        begin = time.time()
        nodes.submit("watch-me", settings(tmp_path, RUN, *options))
        eventually(lambda: (folder / "metrics.jsonl").exists() and records_of(folder), "update", 180)
        time.sleep(WATCHED_S)
        page = browser.new_page(viewport={"width": 1500, "height": 950}, extra_http_headers=nodes.headers)
        photograph(page, nodes, "jobs", ("watch-me", "RUNNING"), pictures / "ray_jobs.png")
        photograph(page, nodes, "actors", ("rollout-0", "learner-0", "ALIVE"), pictures / "ray_actors.png")

        panels = {panel.title: lines_of(url, panel, begin) for row in ROWS.values() for panel in row}
        draw({title: lines for title, lines in panels.items() if lines}, pictures / "panels.png")
        assert {title for title, lines in panels.items() if not lines} <= NOT_HERE.keys()
        targets = asked(url, "targets")["activeTargets"]
        assert len(targets) >= 3
        assert {target["health"] for target in targets} == {"up"}
        rules = [rule for group in asked(url, "rules")["groups"] for rule in group["rules"]]
        assert rules
        assert all(rule["health"] == "ok" for rule in rules)
        nodes.asked("POST", "jobs/watch-me/stop")
        eventually(lambda: nodes.state_of("watch-me") == "STOPPED", "stop")
