"""The packaged configurations, and finding one by its name."""

from pathlib import Path

from rc_grpo.config import ConfigError


def find_config(name: str) -> Path:
    """Return the file behind a path or the name of a packaged config.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = Path(__file__).parent
    if (packaged / f"{name}.yaml").is_file():
        return packaged / f"{name}.yaml"
    names = ", ".join(sorted(path.stem for path in packaged.glob("*.yaml")))
    raise ConfigError(f"no config file {name!r}, and no packaged config of that name (there are: {names})")
