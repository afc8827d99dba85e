"""Edits that another program made: a folder of images named by their samples' ids, each accounted for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rc_grpo.data.picture import Picture
from rc_grpo.durable import write_whole
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, Sample

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_OTHER_IMAGES = (".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".heic")
_ASPECT_WITHIN = 0.02
"""Sides rounded to multiples of 16 change the aspect by so much."""
_NAMED = 3
"""Names that a message has of many."""


@dataclass(frozen=True)
class Foreign:
    """A folder of edits, and whose each is.

    An edit is named by its sample's id, ``FAMILY/IMAGE_PATH``: in folders, flat with ``_`` for ``/``, or by the image's
    path alone where no other sample has it; the suffix is the image's own.

    Attributes:
        folder: that was given.
        files: sample -> its files, one of which is an edit.
        surplus: images that are no sample's, by their path in the folder -> why.
    """

    folder: Path
    files: Mapping[str, tuple[Path, ...]]
    surplus: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path, samples: Sequence[Sample]) -> "Foreign":
        """Match a folder's images with samples by name; none is read.

        Raises:
            ValueError: there is no folder, or no image of any sample in it.
        """
        if not folder.is_dir():
            raise ValueError(f"no folder of edits at {folder}")
        owners = _names(samples)
        files: dict[str, tuple[Path, ...]] = {}
        surplus: dict[str, str] = {}
        for path in sorted(images(folder)):
            name = path.relative_to(folder).as_posix()
            of = owners.get(_plain(name), frozenset())
            if path.suffix.lower() not in SUFFIXES:
                surplus[name] = f"it is no {', '.join(suffix[1:] for suffix in SUFFIXES)}"
            elif len(of) == 1:
                (owner,) = of
                files[owner] = (*files.get(owner, ()), path)
            else:
                surplus[name] = f"it may be of {' or '.join(sorted(of))}" if of else "no sample has this name"
        if not files:
            named = f", but {len(surplus)} others, such as {min(surplus)}" if surplus else ""
            wanted = ", ".join(sample.task_id for sample in samples[:_NAMED])
            raise ValueError(
                f"{folder} holds no edit of the benchmark's {len(samples)} samples{named}. Name each image by its "
                f"sample's id ({wanted}, ...), as png, jpg or webp"
            )
        return cls(folder, files, surplus)

    def path(self, sample: Sample) -> Path:
        """Return where the edit of a sample is, or would be.

        Raises:
            ValueError: there are several.
        """
        files = self.files.get(sample.task_id, ())
        if len(files) > 1:
            named = ", ".join(path.relative_to(self.folder).as_posix() for path in files)
            raise ValueError(f"{self.folder} has {len(files)} images of it ({named}); keep one")
        return files[0] if files else self.folder / f"{sample.task_id}{SUFFIXES[0]}"

    def bring_in(self, benchmark: Benchmark, edits: Edits, advance: Callable[[], object]) -> "Brought":
        """Copy the readable edits to where a benchmark's script looks for a model's; take away what is none any more.

        They are copied as they are, whatever their size: the script scales each to 512 x 512 itself, once. A copy that
        is there already is not written again, so that what was measured of it holds.
        """
        brought = Brought(surplus=self.surplus)
        for sample in benchmark.samples:
            try:
                target = edits.path(sample)
            except ValueError as error:
                brought.refused[sample.task_id] = str(error)
            else:
                self._copy(sample, target, benchmark, brought)
            advance()
        return brought

    def _copy(self, sample: Sample, target: Path, benchmark: Benchmark, brought: "Brought") -> None:
        try:
            found = self._read(sample)
        except ValueError as error:
            brought.refused[sample.task_id] = str(error)
            target.unlink(missing_ok=True)
            return
        if found is None:
            brought.missing.append(sample.task_id)
            target.unlink(missing_ok=True)
            return
        data, size = found
        if not (target.is_file() and target.read_bytes() == data):
            write_whole(target, data)
        brought.note_size(sample.task_id, size, _source_size(benchmark, sample))

    def _read(self, sample: Sample) -> tuple[bytes, tuple[int, int]] | None:
        """Return the bytes and ``(height, width)`` of a sample's edit, or None where there is none."""
        path = self.path(sample)
        if not path.is_file():
            return None
        role = f"edit {path.relative_to(self.folder).as_posix()}"
        data = Picture(path, role).read()
        width, height = Picture(data, role).decode().size
        return data, (height, width)


@dataclass
class Brought:
    """What came of a folder of edits.

    Attributes:
        surplus: images that are no sample's -> why.
        missing: samples of which there is no image.
        refused: samples whose image cannot be used -> why.
        resized: samples whose edit has another size than the source -> both sizes.
        stretched: those of them whose aspect is another, too.
    """

    surplus: Mapping[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)
    stretched: list[str] = field(default_factory=list)

    def note_size(self, task_id: str, edit: tuple[int, int], source: tuple[int, int] | None) -> None:
        """Remember an edit whose ``(height, width)`` is not its source's; None is unknown."""
        if source is None or edit == source:
            return
        self.resized[task_id] = f"{edit[0]}x{edit[1]}, its source {source[0]}x{source[1]} (height x width)"
        if abs(edit[0] * source[1] / (edit[1] * source[0]) - 1) > _ASPECT_WITHIN:
            self.stretched.append(task_id)

    @property
    def reasons(self) -> dict[str, str]:
        """Sample -> why there is no edit of it."""
        return dict.fromkeys(self.missing, "the folder of edits has no image of it") | self.refused

    def in_words(self) -> Iterator[str]:
        """Yield a sentence for each thing that is to be said, with a count and names."""
        for listed, what in (
            (self.missing, "samples have no image"),
            (self.refused, "images cannot be used"),
            (self.surplus, "images are no sample's"),
            (self.resized, "edits have another size than their source, and are scaled as all are to be measured"),
            (self.stretched, "of these have another aspect, and are stretched, as the benchmark's script does it"),
        ):
            if listed:
                yield f"{len(listed)} {what}: {some(listed)}"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "missing": self.missing,
            "refused": self.refused,
            "surplus": dict(self.surplus),
            "other_size": self.resized,
            "other_aspect": self.stretched,
        }


def some(listed: Sequence[str] | Mapping[str, str]) -> str:
    """Return the first of many names, each with what is said of it."""
    shown = [f"{name} ({listed[name]})" if isinstance(listed, Mapping) else name for name in list(listed)[:_NAMED]]
    return ", ".join(shown) + (", ..." if len(listed) > _NAMED else "")


def images(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, of whatever format, in no order; hidden ones are none."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() in (*SUFFIXES, *_OTHER_IMAGES) and path.is_file():
            yield path


def _plain(name: str) -> str:
    """Return a path without its suffix, and without the folder that the benchmark's layout has around the families."""
    first, _, rest = _stem(name).partition("/")
    return rest if rest and first.endswith("_local") else _stem(name)


def _names(samples: Sequence[Sample]) -> dict[str, frozenset[str]]:
    """Return name without suffix -> ids of the samples that it may stand for: the whole id's before all others."""
    whole: dict[str, set[str]] = {}
    parts: dict[str, set[str]] = {}
    for sample in samples:
        if sample.name is None:
            continue
        for name in {sample.task_id, _stem(sample.task_id)}:
            whole.setdefault(name, set()).add(sample.task_id)
        for name in (sample.task_id, sample.name):
            for short in {name, _stem(name), name.replace("/", "_"), _stem(name).replace("/", "_")}:
                parts.setdefault(short, set()).add(sample.task_id)
    return {name: frozenset(ids) for name, ids in (parts | whole).items()}


def _stem(name: str) -> str:
    """Return a name without the suffix of an image; what else follows a dot belongs to the name."""
    head, _, suffix = name.rpartition(".")
    return head if head and f".{suffix.lower()}" in (*SUFFIXES, *_OTHER_IMAGES) else name


def _source_size(benchmark: Benchmark, sample: Sample) -> tuple[int, int] | None:
    """Return ``(height, width)``; None where the source is unreadable, which the measuring says."""
    try:
        return benchmark.source_size(sample)
    except ValueError:
        return None
