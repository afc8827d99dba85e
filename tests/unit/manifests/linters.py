"""Linters that come as Python packages."""

import shutil
import sys
from pathlib import Path


def linter(name: str) -> str:
    """Return the path of a linter of the environment that runs the tests, which need not be on PATH.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: pip install -e '.[dev]'")
    return found
