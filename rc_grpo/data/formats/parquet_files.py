"""Which files a path to parquet means: itself, all below a folder, or those of a pattern; never two splits as one."""

import re
from pathlib import Path

from rc_grpo.data.errors import DataError, reading

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.parquet")
"""As `datasets` names the shards of a split."""


def parquet_files(path: Path) -> tuple[Path, tuple[Path, ...]]:
    """Return what the files' names are relative to, and the files in the order of their names.

    Args:
        path: of a file, of a folder (read whole), or with ``*`` in its last part, such as ``data/train-*.parquet``.

    Raises:
        DataError: there is none, or a folder holds several splits, of which one would be evaluated on what it is
            trained on.
    """
    with reading(path):
        if path.is_dir():
            files = tuple(sorted(path.rglob("*.parquet")))
            _of_one_split(path, files)
            root = path
        elif is_pattern(path):
            root, files = path.parent, tuple(sorted(path.parent.glob(path.name)))
        else:
            root, files = path, (path,) if path.exists() else ()
        if not files:
            raise DataError(f"no parquet file at {path}")
    return root, files


def is_pattern(path: Path) -> bool:
    """Tell whether a path stands for files of a folder by a pattern of their names."""
    return "*" in path.name and not path.exists()


def _of_one_split(folder: Path, files: tuple[Path, ...]) -> None:
    splits = {found[1]: file for file in files if (found := _SHARD.fullmatch(file.name))}
    if len(splits) > 1:
        first, file = next(iter(splits.items()))
        raise DataError(
            f"{folder} holds the splits {', '.join(sorted(splits))}; name the files of one, "
            f"such as {file.parent}/{first}-*.parquet"
        )
