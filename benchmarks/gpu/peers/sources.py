"""The rivals' code: which commits, how to get them, and whether a folder holds them.

    python -m benchmarks.gpu.peers.sources [--peers build/peers] [--from FOLDER]

writes what is measured of each rival into ``build/peers``, which git ignores: by ``git`` from GitHub, or, where the
network is not to be had, out of git directories ``FOLDER/OWNER+NAME/repo``. Nothing of theirs is committed here, and
their files stay as they are: a digest of them is compared before anything runs.

Where this was written git could not reach GitHub; the copies came out of a mirror's git directories, by ``--from``.
"""

import argparse
import hashlib
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

PEERS = Path("build/peers")


@dataclass(frozen=True)
class Source:
    """A rival's repository.

    Attributes:
        name: of its folder here.
        repository: on GitHub.
        commit: which is measured.
        licence: its own.
        pieces: files and folders that are taken.
        digest: SHA-256 of the Python and YAML files among them, see `digest_of`.
    """

    name: str
    repository: str
    commit: str
    licence: str
    pieces: tuple[str, ...]
    digest: str


FLOW_GRPO = Source(
    "flow_grpo",
    "zhtmike/flow_grpo",
    "9745241cf1101407e9b518dd4f10498092150522",
    "MIT",
    (
        "LICENSE",
        "config/base.py",
        "config/grpo.py",
        "flow_grpo/__init__.py",
        "flow_grpo/assets/simple_animals.txt",
        "flow_grpo/diffusers_patch",
        "flow_grpo/ema.py",
        "flow_grpo/prompts.py",
        "flow_grpo/rewards.py",
        "flow_grpo/stat_tracking.py",
        "scripts/accelerate_configs/deepspeed_zero2.yaml",
        "scripts/train_flux_kontext.py",
    ),
    "7563fbb983b29a1fea843ca2ab0478201ff8350adb5c607f115a4fbbd9de4fa3",
)
FLOW_FACTORY = Source(
    "flow_factory",
    "X-GenGroup/Flow-Factory",
    "a0b2bc5a2b4fbf9125429b3fb70c0c5d7631047c",
    "Apache-2.0",
    ("LICENSE", "examples/grpo/lora/flux1_kontext", "src/flow_factory"),
    "c76e7aff6eb3c2daa6948166b96372b267cd03bb175092121bb34146e88aeacf",
)
SOURCES = (FLOW_GRPO, FLOW_FACTORY)


def folder_of(source: Source, peers: Path) -> Path:
    """Return the folder that holds a rival's files, once they are found to be those of the commit.

    Raises:
        FileNotFoundError: it is not there; says how to get it.
        ValueError: its files are others.
    """
    folder = (peers / source.name).resolve()
    how = f"python -m benchmarks.gpu.peers.sources --peers {peers} gets {source.repository} at {source.commit[:7]}"
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no {folder}: {how}, which must then be carried to where this runs")
    if digest_of(folder) != source.digest:
        raise ValueError(f"{folder} does not hold the files of {source.commit[:7]} as they are: remove it; {how}")
    return folder


def digest_of(folder: Path) -> str:
    """Return the SHA-256 (hex) of the names and the bytes of all Python and YAML files in a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".yaml")):
        found.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def fetch(source: Source, peers: Path, copies: Path | None) -> Path:
    """Write a rival's pieces into a folder of ``peers``, in the place of what was there.

    Args:
        source: which.
        peers: where to.
        copies: git directories to take it from; from GitHub if there are none.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if copies is None:
            git = Path(temporary)
            subprocess.run(["git", "init", "--quiet", "--bare", git], check=True)
            url = f"https://github.com/{source.repository}"
            subprocess.run(["git", "-C", git, "fetch", "--quiet", "--depth=1", url, source.commit], check=True)
        else:
            git = copies / source.repository.replace("/", "+") / "repo"
        archive = ["git", "-C", git, "archive", "--format=tar", source.commit, "--", *source.pieces]
        packed = subprocess.run(archive, check=True, capture_output=True).stdout
    folder = peers / source.name
    for old in sorted(folder.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return folder_of(source, peers)


def main() -> None:
    """Fetch all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--from", type=Path, dest="copies", help="a folder of git directories OWNER+NAME/repo")
    options = parser.parse_args()
    for source in SOURCES:
        print(f"{fetch(source, options.peers, options.copies)}: {source.repository} at {source.commit[:7]}")


if __name__ == "__main__":
    main()
