"""The packaged configurations, and loading one by its name."""

from collections.abc import Sequence
from pathlib import Path

from rc_grpo.config import ConfigError, RunConfig, load

PACKAGED = Path(__file__).parent
_SHOWN = 400
"""Characters of a name in a message: a path is shown whole."""


def find_config(name: str) -> Path:
    """Return the file behind a path or the name of a packaged config.

    Raises:
        ConfigError: there is neither.
    """
    for path in (Path(name), PACKAGED / f"{name}.yaml"):
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            # No name that a file system takes, such as the text of a configuration.
            continue
    names = ", ".join(sorted(path.stem for path in PACKAGED.glob("*.yaml")))
    shown = repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
    raise ConfigError(f"no config file {shown}, and no packaged config of that name (there are: {names})")


def load_config(name: str, overrides: Sequence[str] | None = None) -> RunConfig:
    """Load a config by path or packaged name; it may extend a packaged one by name."""
    return load(find_config(name), tuple(overrides or ()), PACKAGED)
