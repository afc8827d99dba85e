"""Distributions of strangers beside rc-grpo: installed into a folder of their own, seen by the commands run there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR


def install(distributions: Sequence[Path], folder: Path, python: str) -> dict[str, str]:
    """Install into a folder, and return an environment that sees what is there, whose Ray runs ``python``."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    sources = [folder / distribution.name for distribution in distributions]
    for distribution, source in zip(distributions, sources, strict=True):
        shutil.copytree(distribution, source)
    subprocess.run([*command, "--target", str(folder / "installed"), *map(str, sources)], check=True, timeout=240)
    path = os.pathsep.join(filter(None, (str(folder / "installed"), os.environ.get("PYTHONPATH"))))
    # As a submitted job is told of its runtime environment.
    job = json.dumps({"runtime_env": {"py_executable": python}})
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", RAY_JOB_CONFIG_JSON_ENV_VAR: job}


def rc_grpo(site: Mapping[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, in an environment of `install`."""
    command = [sys.executable, "-m", "deploy.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=site, capture_output=True, text=True, timeout=240)


def train_pocket(site: Mapping[str, str], folder: Path, overrides: Iterable[str]) -> None:
    """Train the pocket configuration with overrides; it must succeed."""
    options = [part for override in overrides for part in ("--set", override)]
    done = rc_grpo(site, folder, "train", "pocket", *options)
    assert done.returncode == 0, done.stderr[-2000:]
