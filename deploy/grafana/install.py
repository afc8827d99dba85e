"""Puts dashboard and alert rules beside Ray's own: ``python -m deploy.grafana.install [METRICS_FOLDER]``."""

import argparse
import os
import shutil
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
DASHBOARD, ALERTS = "rc_grpo.json", "alerts.yaml"
RAY_METRICS = "/tmp/ray/session_latest/metrics"
_FOLDER, _DASHBOARDS = "RAY_METRICS_OUTPUT_ROOT", "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"


class NoMetricsFolderError(RuntimeError):
    """Ray's dashboard has not written its configurations there."""


def install(metrics: Path, dashboards: Path | None = None) -> list[Path]:
    """Copy the dashboard where Ray's Grafana looks for them, the rules where its Prometheus is configured.

    Args:
        metrics: folder that Ray's dashboard writes its configurations to.
        dashboards: folder of Grafana's dashboards; Ray's default is within ``metrics``.

    Returns:
        The files written or changed.

    Raises:
        NoMetricsFolderError: there are no configurations of Ray's.
    """
    settings = metrics / "prometheus" / "prometheus.yml"
    dashboards = dashboards or metrics / "grafana" / "dashboards"
    if not settings.exists() or not dashboards.is_dir():
        raise NoMetricsFolderError(
            f"Ray's configurations are not in {metrics}: start the cluster with its dashboard (ray start --head), "
            f"on this machine, or name the folder ({_FOLDER})"
        )
    shutil.copyfile(HERE / DASHBOARD, dashboards / DASHBOARD)
    rules = settings.parent / ALERTS
    shutil.copyfile(HERE / ALERTS, rules)
    prometheus = yaml.safe_load(settings.read_text())
    files = prometheus.setdefault("rule_files", [])
    if ALERTS not in files:
        # Relative: Prometheus takes it from where its settings are.
        files.append(ALERTS)
        settings.write_text(yaml.safe_dump(prometheus, sort_keys=False))
    return [dashboards / DASHBOARD, rules, settings]


def main() -> None:
    """Install into the folder named, or into that of the last session of Ray on this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="?", type=Path, default=Path(os.environ.get(_FOLDER, RAY_METRICS)))
    chosen = os.environ.get(_DASHBOARDS)
    try:
        for path in install(parser.parse_args().metrics, Path(chosen) if chosen else None):
            print(path)
    except NoMetricsFolderError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
