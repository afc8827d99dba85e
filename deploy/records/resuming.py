"""Going on with a run: its own configuration, and what of it may differ from one start to the next."""

import re
from pathlib import Path

from deploy.records.checkpoints import Checkpoints
from deploy.records.folder import CONFIG, RunFolder, updates_of
from deploy.records.metrics import METRICS, read_lines
from rc_grpo.config import ConfigError, RunConfig, load
from rc_grpo.config.differences import differences

# Where and how patiently a run works, and what it writes; not what it computes.
_FREE = re.compile(
    r"(rollout|reward\.judges\.\w+|learner)\.(resources\..*|\w+_deadline_s|start_retry_s|attempts|restarts)"
    r"|(rollout|reward\.judges\.\w+)\.(workers|autoscale.*)"
    r"|reward\.metrics_deadline_s|loop\.stop_deadline_s|guards\..*|cluster\..*|output\..*|name"
    # Where the run ends: what was made before stays what it was.
    r"|loop\.updates"
)


def resumed_config(run: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Return the configuration to go on with a run under.

    Args:
        run: its folder.
        overrides: ``a.b=value``; only of what does not change the result so far. With more ``loop.updates`` a
            finished run goes on too.

    Raises:
        ConfigError: there is no such run, it has made all its updates or more than are planned now, or an override
            would make it another run.
    """
    folder = RunFolder(run)
    if not (folder.path / CONFIG).is_file():
        raise ConfigError(f"{run} is no run's folder: it holds no {CONFIG}")
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
    if is_over(config):
        raise ConfigError(
            f"{run} is finished after {updates_made(folder)} updates; there is nothing to go on with. Plan more with "
            f"--set loop.updates=N, or start another run from its LoRA with learner.start_from={run / 'lora'}"
        )
    check_plan(config)
    return config


def updates_made(folder: RunFolder) -> int:
    """Return the updates that a run goes on after: those behind its newest checkpoint."""
    names = Checkpoints(folder.path / "checkpoints", kept=1).names
    return updates_of(names[-1]) if names else 0


def is_over(config: RunConfig) -> bool:
    """Tell whether a run has come to the end that is planned now."""
    folder = RunFolder.of(config)
    return folder.finished and config.loop.updates == updates_made(folder)


def check_plan(config: RunConfig) -> None:
    """Check that a run which was started before can come to the end that is planned now.

    Raises:
        ConfigError: it has made more updates already, or left no checkpoint to go on from.
    """
    folder = RunFolder.of(config)
    made = updates_made(folder)
    if config.loop.updates < made:
        raise ConfigError(
            f"{folder.path} has made {made} updates, and loop.updates = {config.loop.updates} would be fewer; plan at "
            f"least {made}"
        )
    if folder.finished and not made:
        raise ConfigError(
            f"{folder.path} is finished and its checkpoints are gone; start another run from its LoRA with "
            f"learner.start_from={folder.path / 'lora'}"
        )


def is_the_same_run(config: RunConfig) -> bool:
    """Tell whether a run of this name and of this configuration has been started before."""
    path = RunFolder.of(config).path / CONFIG
    return path.is_file() and not _bound(load(path), config)


def _bound(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the keys in which two configurations differ that one run must keep."""
    keys = differences(one.model_dump(mode="json"), other.model_dump(mode="json"))
    return sorted(key for key in keys if not _FREE.fullmatch(key))
