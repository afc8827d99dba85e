"""Going on with a run: its own configuration, and what of it may differ from one start to the next."""

import re
from pathlib import Path

from deploy.records.folder import CONFIG, RunFolder
from deploy.records.metrics import METRICS, read_lines
from rc_grpo.config import ConfigError, RunConfig, load
from rc_grpo.config.differences import differences

# Where and how patiently a run works, and what it writes; not what it computes.
_FREE = re.compile(
    r"(rollout|reward\.judges\.\w+|learner)\.(resources\..*|\w+_deadline_s|start_retry_s|attempts|restarts)"
    r"|(rollout|reward\.judges\.\w+)\.(workers|autoscale.*)"
    r"|reward\.metrics_deadline_s|loop\.stop_deadline_s|guards\..*|cluster\..*|output\..*|name"
)


def resumed_config(run: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Return the configuration to go on with a run under.

    Args:
        run: its folder.
        overrides: ``a.b=value``; only of what does not change the result.

    Raises:
        ConfigError: there is no such run, it is finished, or an override would make it another run.
    """
    folder = RunFolder(run)
    if not (folder.path / CONFIG).is_file():
        raise ConfigError(f"{run} is no run's folder: it holds no {CONFIG}")
    if folder.finished:
        raise ConfigError(
            f"{run} is finished; there is nothing to go on with. To train its LoRA further, start another run with "
            f"learner.start_from={run / 'lora'}"
        )
    own = load(folder.path / CONFIG)
    folder.require_readable()
    read_lines(folder.path / METRICS)
    # The folder may have been moved since.
    here = (f"output.root={folder.path.parent}", f"name={folder.path.name}")
    config = load(folder.path / CONFIG, (*overrides, *here))
    if changed := _bound(own, config):
        raise ConfigError(
            f"a run cannot be resumed with another {', '.join(changed)}: it would not be the same run. "
            "Start a new one, or leave it as it is"
        )
    return config


def is_the_same_run(config: RunConfig) -> bool:
    """Tell whether a run of this name and of this configuration has been started before."""
    path = RunFolder.of(config).path / CONFIG
    return path.is_file() and not _bound(load(path), config)


def _bound(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the keys in which two configurations differ that one run must keep."""
    keys = differences(one.model_dump(mode="json"), other.model_dump(mode="json"))
    return sorted(key for key in keys if not _FREE.fullmatch(key))
