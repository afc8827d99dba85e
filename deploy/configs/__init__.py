"""The packaged configurations, and loading one by its name."""

from collections.abc import Sequence
from pathlib import Path

from rc_grpo.config import ConfigError, RunConfig, load

PACKAGED = Path(__file__).parent


def find_config(name: str) -> Path:
    """Return the file behind a path or the name of a packaged config.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    if (PACKAGED / f"{name}.yaml").is_file():
        return PACKAGED / f"{name}.yaml"
    names = ", ".join(sorted(path.stem for path in PACKAGED.glob("*.yaml")))
    raise ConfigError(f"no config file {name!r}, and no packaged config of that name (there are: {names})")


def load_config(name: str, overrides: Sequence[str] | None = None) -> RunConfig:
    """Load a config by path or packaged name; it may extend a packaged one by name."""
    return load(find_config(name), tuple(overrides or ()), PACKAGED)
