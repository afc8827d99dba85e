"""The exporter: hands a run's figures to Ray's metrics, under the names of the table."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import ray
from ray.util import metrics as ray_metrics

from deploy.observability.figures import group_flop, of_batch, of_run
from deploy.observability.metric import Kind, Metric
from deploy.observability.table import BY_SHORT_NAME, METRICS, find
from deploy.watching.snapshot import Snapshot
from rc_grpo.config import RunConfig
from rc_grpo.messages import ScoredGroup


class Agent(Protocol):
    """Takes values of metrics: `RayAgent`, or a test's."""

    def take(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge, raise a counter, count into a histogram."""
        ...


class RayAgent:
    """The metrics agent of this process's node.

    Args:
        run: its name, a tag of everything.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._instruments = {metric.name: _instrument(metric) for metric in METRICS}

    def take(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge, raise a counter, count into a histogram."""
        instrument, labels = self._instruments[metric.name], {"run": self._run, **tags}
        if isinstance(instrument, ray_metrics.Gauge):
            instrument.set(value, labels)
        elif isinstance(instrument, ray_metrics.Histogram):
            instrument.observe(value, labels)
        elif value > 0:  # Ray refuses to raise a counter by nothing.
            instrument.inc(value, labels)


def metrics_agent(run: str) -> RayAgent | None:
    """Return the agent that this process's metrics go to, or None where Ray runs without one."""
    here = ray.get_runtime_context().get_node_id()
    ports = [node["MetricsExportPort"] for node in ray.nodes() if node["NodeID"] == here]
    return RayAgent(run) if any(port > 0 for port in ports) else None


class RunMetrics:
    """A run's figures on their way to Prometheus.

    Args:
        config: of the run.
        agent: takes them; None exports nothing.
    """

    def __init__(self, config: RunConfig, agent: Agent | None) -> None:
        self._agent = agent
        self._ranks = config.learner.ranks
        self._flop = None if agent is None else group_flop(config)
        self._latest: dict[str, float] = {}
        self._updated_at = time.time()

    def update(self, metrics: Mapping[str, float], batch: Sequence[ScoredGroup]) -> None:
        """Export an update: its entry in `metrics.jsonl`, and what its groups say themselves."""
        self._updated_at = time.time()
        self.export({**metrics, **of_batch(batch, metrics, self._flop, self._ranks)})
        for scored in batch:
            self._take(BY_SHORT_NAME["judge_latency_seconds"], scored.scores.latency, {})

    def export(self, figures: Mapping[str, float]) -> None:
        """Export figures by name: counters are raised once, gauges are kept up until the next figures of that name.

        A figure that is not a number ends its gauge's series.
        """
        self._latest |= figures
        self._pass_on(figures, ("gauge", "counter"))

    def live(self, run: Snapshot) -> None:
        """Export what a run does at this moment, and its last figures again; to be called every second or so.

        Ray forgets a gauge that is not set for two of its report intervals, 20 seconds: so a worker that is gone, a run
        that is over and a driver that hangs are seen to be silent.
        """
        if self._agent is not None:
            now = {"run/last_update": self._updated_at, **of_run(run)}
            self._pass_on(self._latest | now, ("gauge",))

    def _pass_on(self, figures: Mapping[str, float], kinds: Sequence[Kind]) -> None:
        for name, value in figures.items():
            if (found := find(name)) is not None and found[0].kind in kinds:
                self._take(found[0], value, found[1])

    def _take(self, metric: Metric, value: float, tags: Mapping[str, str]) -> None:
        if self._agent is not None and math.isfinite(value):
            self._agent.take(metric, float(value), tags)


def _instrument(metric: Metric) -> ray_metrics.Gauge | ray_metrics.Counter | ray_metrics.Histogram:
    tags = ("run", *metric.tags)
    if metric.kind == "gauge":
        return ray_metrics.Gauge(metric.name, metric.help, tags)
    if metric.kind == "counter":
        return ray_metrics.Counter(metric.name, metric.help, tags)
    return ray_metrics.Histogram(metric.name, metric.help, list(metric.buckets), tags)
