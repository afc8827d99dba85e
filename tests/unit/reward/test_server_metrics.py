import pytest

from reward_service.serving.server_metrics import ServerMetrics, read

TEXT = """
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="judge"} 3.0
vllm:num_requests_waiting{engine="1",model_name="judge"} 2.0
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="1.0"} 4.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 5.0
vllm:e2e_request_latency_seconds_sum 6.5
vllm:e2e_request_latency_seconds_count 5.0
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 11.0
"""


def test_the_server_s_own_metrics_are_read_and_engines_added_up() -> None:
    assert read(TEXT) == {
        "vllm:num_requests_waiting": 5.0,
        "vllm:e2e_request_latency_seconds_sum": 6.5,
        "vllm:e2e_request_latency_seconds_count": 5.0,
    }


def test_silence_is_no_metrics() -> None:
    assert read("") == {}


@pytest.mark.parametrize("text", ["<html></html>", '{"error": "none"}', "vllm:a{", "vllm:a 1_0", "# TYPE\n", "\x00"])
def test_what_is_no_metrics_changes_nothing_and_ends_nothing(text: str) -> None:
    metrics = ServerMetrics("reward-0")
    metrics.export(text)
    assert metrics.latest == {}
