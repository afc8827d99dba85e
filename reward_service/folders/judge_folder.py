"""A folder that a judge is served from: what makes it whole, and the manifest that says how it was merged.

A server takes whatever lies in the folder, and at worst scores on with half of it, so a folder is looked at before
anything is started on it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from rc_grpo.editor.weights import on_disk

MANIFEST = "rc_grpo_judge.json"
"""Name of the manifest inside a merged folder."""

ADAPTER_CONFIG = "adapter_config.json"


class JudgeFolderError(ValueError):
    """A folder cannot be served as it is; the message names the file and the way out."""


class FileRecord(BaseModel):
    """What a file was when it was recorded.

    Attributes:
        size: in bytes.
        sha256: in hex.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Measure a file; reads all of it."""
        with path.open("rb") as file:
            return cls(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class Source(BaseModel):
    """Something a judge was merged from.

    Attributes:
        name: the folder or hub id it was asked for by.
        revision: commit on the hub; none for a folder.
        files: those that went into the merge, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    revision: str | None
    files: dict[str, FileRecord]


class Parity(BaseModel):
    """How far the merged model is from base and adapter unmerged, over the logits of a judge's answer.

    Attributes:
        positions: how many positions, each over the whole vocabulary, were compared.
        effect: max |unmerged - base|, what the adapter does at all.
        error: max |merged - unmerged|, what merging and rounding changed.
        tolerance: bound on ``error / effect`` that held.
        top1_agreement: share of positions at which merged and unmerged model prefer the same token.
        top1_agreement_base: the same for the base without the adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    positions: int
    effect: float
    error: float
    tolerance: float
    top1_agreement: float
    top1_agreement_base: float


class Manifest(BaseModel):
    """How a merged folder came about and what is in it.

    Attributes:
        base: the vision-language model.
        adapter: the LoRA that was merged into it.
        dtype: of the merged weights.
        tensors: how many adapter tensors were bound.
        parity: measured on the folder as written.
        versions: of the packages that did it.
        files: everything in the folder but the manifest itself, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: Source
    adapter: Source
    dtype: str
    tensors: int
    parity: Parity
    versions: dict[str, str]
    files: dict[str, FileRecord]


def read_manifest(folder: Path) -> Manifest | None:
    """Return a folder's manifest, or None if it has none.

    Raises:
        JudgeFolderError: it has one that cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise JudgeFolderError(f"{path} is not a manifest of ours; {way_out(folder)}") from error


def check_weights(folder: Path) -> list[str]:
    """Check the weight files that a judge's folder must have, and return their names, sorted.

    Raises:
        JudgeFolderError: as `rc_grpo.editor.weights.on_disk.check_weights`, with the way out.
    """
    with _of_a_judge(folder):
        return on_disk.check_weights(folder)


def check_safetensors(path: Path) -> None:
    """Compare a safetensors file's length with what its header says; reads the header alone.

    Raises:
        JudgeFolderError: as `rc_grpo.editor.weights.on_disk.check_safetensors`, with the way out.
    """
    with _of_a_judge(path.parent):
        on_disk.check_safetensors(path)


@contextmanager
def _of_a_judge(folder: Path) -> Iterator[None]:
    try:
        yield
    except on_disk.ModelFilesError as error:
        raise JudgeFolderError(f"{error}; {way_out(folder)}") from error


def check_judge_folder(path: Path, *, verify_digests: bool = False) -> None:
    """Tell whether a model can be served from a folder; cheap enough to do before every start.

    Looks at names, lengths and safetensors headers, and at sizes in the manifest if there is one.

    Args:
        path: the folder.
        verify_digests: also hash every file that the manifest names, which reads all of them.

    Raises:
        JudgeFolderError: something is missing, cut off or altered; the message names it and the way out.
    """
    if not path.is_dir():
        raise JudgeFolderError(f"{path} is not a folder; make it: rc-grpo merge-judge BASE ADAPTER {path}")
    if not (path / "config.json").is_file():
        if (path / ADAPTER_CONFIG).is_file():
            raise JudgeFolderError(
                f"{path} holds an adapter ({ADAPTER_CONFIG}, no config.json), which cannot be served by itself; "
                f"merge it first: rc-grpo merge-judge BASE {path} OUT"
            )
        raise JudgeFolderError(f"{path / 'config.json'} is missing; {way_out(path)}")
    check_weights(path)
    manifest = read_manifest(path)
    for name, record in sorted(manifest.files.items()) if manifest else ():
        file = path / name
        if not file.is_file():
            raise JudgeFolderError(f"{file} is missing; {way_out(path)}")
        if file.stat().st_size != record.size:
            raise JudgeFolderError(
                f"{file} has {file.stat().st_size} bytes, {MANIFEST} says {record.size}; {way_out(path)}"
            )
        if verify_digests and FileRecord.of(file) != record:
            raise JudgeFolderError(f"{file} is not the file that {MANIFEST} records; {way_out(path)}")


def way_out(folder: Path) -> str:
    """Return what to do with a folder that is not whole."""
    return f"remove {folder} and make it again (rc-grpo merge-judge, or download it)"
