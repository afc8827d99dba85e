"""A judge server's own Prometheus metrics, passed on through Ray's, so that one dashboard shows both."""

import logging
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from ray.util.metrics import Gauge

from rc_grpo.storable import one_line

logger = logging.getLogger(__name__)
_LOGGED_CHARACTERS = 200

PREFIX = "vllm:"
SUMMARY = {
    "vllm:num_requests_running": "requests_running",
    "vllm:num_requests_waiting": "requests_waiting",
    "vllm:kv_cache_usage_perc": "kv_cache_usage",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generated_tokens",
    "vllm:prefix_cache_queries_total": "prefix_cache_queries",
    "vllm:prefix_cache_hits_total": "prefix_cache_hits",
    "vllm:mm_cache_queries_total": "image_cache_queries",
    "vllm:mm_cache_hits_total": "image_cache_hits",
}
"""What a run's own log keeps of them, and as what."""


class ServerMetrics:
    """Exports a server's metrics as Ray gauges named ``vllm_...``, tagged with the worker; histograms by sum and count.

    Args:
        worker: name of the reward actor.
    """

    def __init__(self, worker: str) -> None:
        self.latest: dict[str, float] = {}
        self._worker = worker
        self._gauges: dict[str, Gauge] = {}

    def export(self, text: str) -> None:
        """Take over what the server says now; silence, or what is no metrics, changes nothing."""
        try:
            values = read(text)
        except ValueError as error:
            logger.info("%s: its server's metrics are none: %s", self._worker, one_line(str(error), _LOGGED_CHARACTERS))
            return
        for name, value in values.items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(name.replace(":", "_"), f"{name} of the judge's server", ("worker",))
            self._gauges[name].set(value, {"worker": self._worker})
        if values:
            self.latest = {short: values[name] for name, short in SUMMARY.items() if name in values}


def read(text: str) -> Mapping[str, float]:
    """Return vLLM's metrics by name, summed over their labels; buckets of histograms and creation times left out.

    Raises:
        ValueError: the text is none of Prometheus'.
    """
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(PREFIX) and not sample.name.endswith(("_bucket", "_created", "_info")):
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values
