"""What is asked of ``rc-grpo masks``, and whether it can be done at all."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy.configs import load_config
from deploy.outputs import check_folder
from rc_grpo.config import ConfigError
from rc_grpo.data.fingerprint import sampled
from rc_grpo.data.formats.parquet_files import is_pattern, parquet_files
from rc_grpo.masks.difference import Difference
from rc_grpo.masks.drawn import Drawn
from rc_grpo.masks.making import MaskMaker, Method
from rc_grpo.masks.rows import Rows
from rc_grpo.masks.shaping import Shape


@dataclass(frozen=True)
class Request:
    """A data set to be given masks.

    Attributes:
        by: how they are made.
        out: folder of the new data set.
        min_area: share of the image below which a mask is refused.
        max_area: share above which it is.
        renew: make masks of tasks that have one of their own, too.
        png: folder that masks are written to as files, or with ``by`` png read from.
    """

    by: Method
    out: Path
    min_area: float
    max_area: float
    renew: bool
    png: Path | None

    def check(self, data: Path | None) -> None:
        """Check that the result can be written, and that nothing of the data is written over.

        Args:
            data: the file or folder that is read; None where tasks are generated.

        Raises:
            ConfigError: it cannot, or the areas allow nothing.
        """
        if self.min_area >= self.max_area:
            raise ConfigError(f"--min-area {self.min_area:g} is not below --max-area {self.max_area:g}")
        if self.by == "png" and (self.png is None or not self.png.is_dir()):
            raise ConfigError("--by png reads the masks of a folder; name it: --png FOLDER")
        folders = {"--out": self.out} | ({"--png": self.png} if self.png is not None else {})
        for option, folder in folders.items():
            if folder.exists() and not folder.is_dir():
                raise ConfigError(f"{option} {folder} is a file; name a folder")
            if data is not None and _overlap(folder, data) and not (option == "--png" and self.by == "png"):
                raise ConfigError(f"{option} {folder} and the data {data} lie in one another; name a folder beside it")
        if self.png is not None and _overlap(self.png, self.out):
            raise ConfigError(f"--png {self.png} and --out {self.out} lie in one another; name a folder beside it")
        check_folder(self.out, "--out")
        if self.png is not None and self.by != "png":
            check_folder(self.png, "--png")

    def as_json(self, rows: Rows, maker: MaskMaker) -> dict[str, Any]:
        """Return all that decides what comes out, for JSON; `limit` does not, as more rows may be asked for later."""
        source = rows.source
        return {
            "method": self.by,
            "parameters": dict(maker.parameters),
            "version": version("rc-grpo"),
            "min_area": self.min_area,
            "max_area": self.max_area,
            "renew": self.renew,
            "data": str(source.path or source.format),
            "columns": dict(source.columns),
            "files": "" if source.path is None else digest_of_files(source.path),
        }


@dataclass(frozen=True)
class Making:
    """How masks are made, as the command line says it.

    Attributes:
        margin: of a difference, as share of the image's side.
        detector: folder or hub id, for ``grounded``.
        segmenter: likewise.
        config: whose editor's attention it is.
        overrides: of that configuration.
    """

    margin: float
    detector: str
    segmenter: str
    config: str
    overrides: Sequence[str]


def maker_of(request: Request, making: Making) -> MaskMaker:
    """Return what makes the masks; models are loaded here.

    Raises:
        ValueError: a model is not there.
    """
    if request.by == "difference":
        return Difference(shape=Shape(margin=making.margin))
    if request.by == "png":
        assert request.png is not None
        return Drawn(request.png)
    if request.by == "grounded":
        from rc_grpo.masks.grounded import Grounded

        return Grounded.load(making.detector, making.segmenter, Shape(margin=making.margin))
    from rc_grpo.masks.attention import Attention

    return Attention.load(load_config(making.config, making.overrides), Shape(margin=making.margin))


def digest_of_files(path: Path) -> str:
    """Return a digest of a data set's files by name, length and content; of large ones, of parts of it.

    Images that lie beside them are not read here: each row keeps a digest of its own.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(file.relative_to(path.parent).as_posix().encode())
        with file.open("rb") as stream:
            for block in sampled(stream):
                digest.update(block)
    return digest.hexdigest()[:16]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file() or is_pattern(path):
        yield from parquet_files(path)[1]
        return
    for pattern in ("*.parquet", "metadata.json"):
        yield from sorted(path.rglob(pattern))


def _overlap(folder: Path, data: Path) -> bool:
    one, other = folder.resolve(), data.resolve()
    return one == other or one.is_relative_to(other) or other.is_relative_to(one)


def columns_of(given: Sequence[str]) -> Mapping[str, str]:
    """Return the column map of ``--column FIELD=COLUMN`` options.

    Raises:
        ConfigError: one is not of that form, or names a field twice.
    """
    found: dict[str, str] = {}
    for option in given:
        field, separator, column = option.partition("=")
        if not separator or not field or not column or field in found:
            raise ConfigError(f"--column takes FIELD=COLUMN, each field once, not {option!r}")
        found[field] = column
    return found
