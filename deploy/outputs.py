"""Files that a command is told to write: whether it can is known before the work, and not after it."""

from pathlib import Path

from rc_grpo.config import ConfigError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def check_picture(path: Path | None, option: str) -> None:
    """Check that a picture can be written; see `check_file`.

    Raises:
        ConfigError: it cannot, or its name does not end as a known kind of picture does.
    """
    if path is None:
        return
    check_file(path, option, example="sheet.png")
    if path.suffix.lower() not in PICTURES:
        raise ConfigError(f"{option} {path} is a picture; let its name end in {', '.join(PICTURES)}")


def check_file(path: Path | None, option: str, *, example: str) -> None:
    """Check that a file can be written, by beginning one beside it. Missing folders are made.

    Args:
        path: of the file; None, where none is asked for, is in order.
        option: that names it.
        example: a name, for where a folder is given.

    Raises:
        ConfigError: the path is a folder's or a device's, or nothing can be written there.
    """
    if path is None:
        return
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name the file to write, such as {option} {path / example}")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{option} {path} is no file that could be replaced; name another")
        check_folder(path.parent, option)
        if path.exists():
            path.open("ab").close()
        else:
            # By its own name, which may be too long or hold what the file system does not take.
            path.open("xb").close()
            path.unlink()
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{option} {path} cannot be written: {_reason(error)}") from error


def check_folder(path: Path, option: str) -> None:
    """Check that files can be written into a folder, which is made if need be.

    Raises:
        ConfigError: they cannot.
    """
    probe = path / ".rc-grpo-can-write"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b".")
        probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: nothing can be written into {path}: {_reason(error)}") from error


def check_apart(**named: Path | None) -> None:
    """Check that no two of a command's files are one, of which only the later would be left.

    Args:
        named: files by what they are called on the command line.

    Raises:
        ConfigError: two are.
    """
    seen: dict[Path, str] = {}
    for name, path in named.items():
        if path is None:
            continue
        if (other := seen.setdefault(path.resolve(), name)) != name:
            raise ConfigError(f"{other} and {name} are one file, {path}; name another for one of them")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
