import asyncio
import json
import math
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import promql_parser
import pytest
import yaml
from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels as rays_own

from deploy.configs import load_config
from deploy.grafana import build, install
from deploy.observability.exporter import RunMetrics
from deploy.observability.figures import group_flop, of_run
from deploy.observability.metric import Metric
from deploy.observability.table import ELSEWHERE, METRICS, as_markdown, find, is_elsewhere
from deploy.planning.speeds import UpdateSpeed, speeds
from deploy.planning.work import work_of
from deploy.records.metrics import batch_metrics
from deploy.stopping import Stop
from deploy.watching.snapshot import Snapshot, take
from learner.group import UpdateReport
from rc_grpo.config import PoolConfig
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.pool import WorkerPool
from rc_grpo.waiting import Waits
from reward_service.serving.server_metrics import SUMMARY
from tests.unit.deploy.test_metrics import scored, version

ALERTS = build.HERE / install.ALERTS
EXPORTED = {name: metric for metric in METRICS for name in metric.series}
SERVERS = {"ray_" + name.replace(":", "_") for name in SUMMARY}
RAY_LABELS = {"instance", "SessionName", "le"}


def dashboard_expressions() -> list[str]:
    panels = json.loads(build.DASHBOARD.read_text())["panels"]
    written = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [expression.replace("$__rate_interval", "5m").replace("$peak_tflops", "989") for expression in written]


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def selectors(expressions: list[str]) -> list[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    for expression in expressions:
        promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_dashboard_and_alerts_name_only_what_is_exported() -> None:
    rays_queries = Path(rays_own.__file__).read_text()
    for selector in selectors(dashboard_expressions() + [rule["expr"] for rule in alert_rules()]):
        name = str(selector.name)
        if name not in EXPORTED and name not in SERVERS:
            assert name in rays_queries, f"{name} is exported neither by a run, nor by its judges, nor by Ray"


def test_dashboard_and_alerts_select_by_labels_that_the_metrics_have() -> None:
    for selector in selectors(dashboard_expressions() + [rule["expr"] for rule in alert_rules()]):
        if (metric := EXPORTED.get(str(selector.name))) is not None:
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert labels <= {"run", *metric.tags, *RAY_LABELS}, selector.name


def test_every_exported_metric_is_on_the_dashboard() -> None:
    shown = {str(selector.name) for selector in selectors(dashboard_expressions())}
    assert [metric.short for metric in METRICS if not shown & set(metric.series)] == []


def test_dashboard_and_documentation_are_those_of_the_table() -> None:
    assert build.DASHBOARD.read_text() == build.as_json(), "run python -m deploy.grafana.build"
    _, table, _ = build.table_of(build.README.read_text())
    assert table == as_markdown(), "run python -m deploy.grafana.build"


def test_names_are_unique_and_follow_prometheus_conventions() -> None:
    assert max(Counter(name for metric in METRICS for name in metric.series).values()) == 1
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.short.endswith("_total"), metric.short
        assert (metric.unit == "seconds") == ("seconds" in metric.short), metric.short
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.short
        for source in metric.sources:
            named = source.match(source.pattern.replace("{", "").replace("}", ""))
            assert named is not None
            assert set(named) == set(metric.tags), f"{metric.short} gets other tags from {source.pattern}"


def test_panels_have_places_of_their_own() -> None:
    panels = json.loads(build.DASHBOARD.read_text())["panels"]
    cells = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_alert_says_what_to_do() -> None:
    for rule in alert_rules():
        assert rule["annotations"]["summary"].startswith("{{ $labels.run }}: ")
        assert rule["annotations"]["runbook"].endswith(".")
        assert rule["labels"]["severity"] in ("warning", "critical")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    for command in (["check", "rules", ALERTS.name], ["test", "rules", "alerts_test.yaml"]):
        subprocess.run(["promtool", *command], cwd=ALERTS.parent, check=True)
    tested = (ALERTS.parent / "alerts_test.yaml").read_text()
    assert [rule["alert"] for rule in alert_rules() if f'alertname="{rule["alert"]}"' not in tested] == []


class Recording:
    """What an agent was given: gauges as they stand, counters and histograms added up."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def take(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        assert set(tags) == set(metric.tags)
        key = " ".join((metric.short, *tags.values()))
        self.values[key] = value if metric.kind == "gauge" else self.values.get(key, 0.0) + value


def updated(agent: Recording, *learned: Mapping[str, float]) -> RunMetrics:
    """Export two groups of three candidates, one without a score, once for each entry."""
    exported = RunMetrics(load_config("pocket"), agent)
    batch = [scored([0.2, math.nan, 0.4], 3), scored([0.6, 0.6, 0.6], 2)]
    for metrics in learned:
        report = UpdateReport(version(3), np.zeros((2, 3)), (None, "tied_task_rewards"), dict(metrics))
        exported.update(batch_metrics(batch, report), batch)
    return exported


@pytest.fixture
def live_figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    figures: dict[str, float] = {}
    monkeypatch.setattr("deploy.observability.exporter.of_run", lambda *_: figures)
    return figures


def live(exported: RunMetrics) -> None:
    nobody: Any = None
    exported.live(nobody)


def test_an_update_sets_gauges_and_raises_counters() -> None:
    agent = Recording()
    metrics = {"update/seconds": 2.0, "update/seconds_backward": 1.5, "groups_skipped/tied_task_rewards": 1.0}
    updated(agent, metrics, metrics)
    values = agent.values
    assert values["updates_total"] == 2
    assert values["groups_total"] == 4
    assert values["candidates_total"] == 12
    assert values["task_scores_failed_total"] == 2
    assert values["groups_skipped_total tied_task_rewards"] == 2
    assert values["groups_skipped_share"] == 0.5
    assert values["learner_phase_seconds_total backward"] == 3.0
    assert values["learner_update_seconds"] == 2.0
    assert values["staleness_max"] == 1
    assert values["task_reward_mean"] == pytest.approx((0.2 + 0.4 + 1.8) / 5)
    flop, ranks = group_flop(load_config("pocket")), load_config("pocket").learner.ranks
    assert flop is not None
    assert values["learner_rank_flop_per_second"] == pytest.approx(flop / ranks / 2.0)


def test_what_is_not_a_number_ends_a_gauge_and_raises_no_counter(live_figures: dict[str, float]) -> None:
    agent = Recording()
    exported = updated(agent, {})
    exported.export({"reward/task_mean": math.nan, "reward/failed_scores": math.nan})
    assert agent.values["task_scores_failed_total"] == 1
    agent.values.clear()
    live(exported)
    assert "task_reward_mean" not in agent.values


def test_gauges_of_the_last_update_are_said_again_and_counters_are_not(live_figures: dict[str, float]) -> None:
    agent = Recording()
    exported = updated(agent, {"update/seconds": 2.0})
    before = {name: value for name, value in agent.values.items() if not name.split()[0].endswith("_total")}
    agent.values.clear()
    live(exported)
    assert {name for name in before if "latency" not in name} <= agent.values.keys()
    assert agent.values["learner_update_seconds"] == 2.0
    assert agent.values["last_update_timestamp_seconds"] > 0
    assert not [name for name in agent.values if name.split()[0].endswith("_total")]


def test_without_an_agent_nothing_is_exported_and_nothing_fails() -> None:
    exported = RunMetrics(load_config("pocket"), None)
    exported.export({"reward/task_mean": 1.0})


def test_the_task_s_reward_is_not_taken_for_a_judge_s() -> None:
    taken = {name: find(name) for name in ("reward/task_mean", "reward/editscore_mean", "heldout/reward/editscore")}
    assert {name: (metric.short, tags) for name, (metric, tags) in taken.items() if metric} == {  # type: ignore[misc]
        "reward/task_mean": ("task_reward_mean", {}),
        "reward/editscore_mean": ("judge_reward_mean", {"judge": "editscore"}),
        "heldout/reward/editscore": ("heldout_judge_reward_mean", {"judge": "editscore"}),
    }


def test_what_is_exported_elsewhere_is_not_exported_twice() -> None:
    for pattern in ELSEWHERE:
        name = pattern.replace("{", "").replace("}", "")
        assert is_elsewhere(name)
        assert find(name) is None


def seen(pool: WorkerPool[str]) -> Snapshot:
    position: Any = SimpleNamespace(done=1, losses=0)
    services: Any = SimpleNamespace(
        config=load_config("pocket"),
        pools={pool.role: pool},
        learner=SimpleNamespace(waits=Waits(), has_published=False),
        source=SimpleNamespace(waits=Waits(), counts={"owed": 3}),
    )
    return take(position, services, Stop(), Waits())


def test_the_age_of_a_queue_is_told_from_that_of_a_call() -> None:
    async def figures() -> tuple[dict[str, float], dict[str, float]]:
        async def start(name: str) -> str:
            return name

        pool = WorkerPool("rollout", PoolConfig(workers=1, call_deadline_s=10.0), start, lambda _: None, lost=())
        await pool.open()
        done = asyncio.Event()
        calls = [asyncio.create_task(pool.run("a task", lambda _: done.wait())) for _ in range(2)]
        await asyncio.sleep(0.1)
        busy = of_run(seen(pool))
        done.set()
        await asyncio.gather(*calls)
        return busy, of_run(seen(pool))

    busy, idle = asyncio.run(figures())
    assert busy["queue/rollout"] > 0.05
    assert busy["wait/rollout"] > 0.05
    assert 0.005 < busy["wait/rollout/deadline"] < 0.5
    assert busy["pool/rollout_queued"] == 1
    assert idle["queue/rollout"] == idle["wait/rollout"] == idle["wait/rollout/deadline"] == 0
    assert all(find(name) is not None for name in busy), [name for name in busy if find(name) is None]


def test_a_worker_that_is_gone_has_no_version_any_more(live_figures: dict[str, float]) -> None:
    agent = Recording()
    exported = updated(agent)
    live_figures |= {"version/rollout-0": 4.0, "version/rollout-1": 4.0, "version": 5.0}
    live(exported)
    assert agent.values["worker_policy_version rollout-0"] == 4
    agent.values.clear()
    del live_figures["version/rollout-0"]
    live(exported)
    assert "worker_policy_version rollout-0" not in agent.values
    assert agent.values["worker_policy_version rollout-1"] == 4
    assert agent.values["policy_version"] == 5


def test_the_operations_of_an_update_are_those_that_capacity_plans_with() -> None:
    settings = ("loop.max_staleness=0", "learner.activations=store", "learner.anchors_per_pass=4")
    config = load_config("flux_kontext_dev", (f"editor.model={FULL_SIZE}", *settings))
    flop = group_flop(config)
    assert flop is not None
    assert config.objective.old_path != "recompute"
    tflop_s = 500.0
    one_rate = UpdateSpeed(projections=tflop_s, attention=tflop_s)
    work = work_of(config, speeds()["H200"].model_copy(update={"update": one_rate}))
    assert flop * config.loop.groups_per_update / 1e12 == pytest.approx(work.update_s * tflop_s)


@pytest.fixture
def metrics_folder(tmp_path: Path) -> Path:
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "grafana" / "dashboards").mkdir(parents=True)
    settings = {"global": {"scrape_interval": "10s"}, "scrape_configs": [{"job_name": "ray"}]}
    (tmp_path / "prometheus" / "prometheus.yml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_installing_twice_is_installing_once_and_keeps_ray_s_settings(metrics_folder: Path) -> None:
    for _ in range(2):
        install.install(metrics_folder)
    settings = yaml.safe_load((metrics_folder / "prometheus" / "prometheus.yml").read_text())
    assert settings["rule_files"] == ["alerts.yaml"]
    assert settings["scrape_configs"] == [{"job_name": "ray"}]
    assert (metrics_folder / "prometheus" / "alerts.yaml").read_text() == ALERTS.read_text()
    installed = metrics_folder / "grafana" / "dashboards" / "rc_grpo.json"
    assert installed.read_text() == build.DASHBOARD.read_text()


def test_where_ray_wrote_no_configurations_nothing_is_installed(tmp_path: Path) -> None:
    with pytest.raises(install.NoMetricsFolderError, match="ray start --head"):
        install.install(tmp_path)
    assert not list(tmp_path.iterdir())
