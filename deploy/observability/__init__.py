"""What a run tells Ray's metrics agent, and so Prometheus: one table of metrics, and the exporter that fills it."""
