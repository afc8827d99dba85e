"""Going on with a run: its own configuration, and what of it may differ from one start to the next."""

import re
from pathlib import Path
from typing import Any

from deploy.folder import CONFIG, RunFolder
from rc_grpo.config import ConfigError, RunConfig, load

# Where and how patiently a run works, and what it writes; not what it computes.
_FREE = re.compile(
    r"(rollout|reward\.judges\.\w+|learner)\.(resources\..*|\w+_deadline_s|start_retry_s|attempts|restarts)"
    r"|(rollout|reward\.judges\.\w+)\.(workers|autoscale.*)"
    r"|reward\.metrics_deadline_s|loop\.stop_deadline_s|cluster\..*|output\..*|name"
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
    # The folder may have been moved since.
    here = (f"output.root={folder.path.parent}", f"name={folder.path.name}")
    config = load(folder.path / CONFIG, (*overrides, *here))
    changed = [key for key in differences(own, config) if not _FREE.fullmatch(key)]
    if changed:
        raise ConfigError(
            f"a run cannot be resumed with another {', '.join(changed)}: it would not be the same run. "
            "Start a new one, or leave it as it is"
        )
    return config


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the dotted names of the values in which two configurations differ."""
    first, second = flat(one.model_dump(mode="json")), flat(other.model_dump(mode="json"))
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def is_the_same_run(config: RunConfig) -> bool:
    """Tell whether a run of this name and of this configuration has been started before."""
    path = RunFolder(config.output.root / config.name).path / CONFIG
    return path.is_file() and all(_FREE.fullmatch(key) for key in differences(load(path), config))


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted name; an empty mapping is a leaf."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else key)
    return found
