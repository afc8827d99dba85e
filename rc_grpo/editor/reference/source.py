"""Where another editor's pipeline is, its class, and what tells its files from others; no weights are loaded."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from rc_grpo.editor.files import INDEX, POCKET, reach_the_hub
from rc_grpo.editor.weights.components import check_folder
from rc_grpo.editor.weights.on_disk import ModelFilesError
from rc_grpo.pocket import MODEL_PATH

UNREADABLE = (OSError, HfHubHTTPError, HFValidationError)
"""What is raised where a pipeline's files are not to be had."""

_ENDS = 2**20
"""Bytes of either end of a file that tell it from others: a whole pipeline takes a minute to read, and other weights
differ in every tensor."""
_OF_A_PIPELINE = (".json", ".safetensors", ".txt", ".model")


class PipelineError(ValueError):
    """A pipeline cannot be used as an editor; the message names it and the way out."""


@dataclass(frozen=True)
class PipelineSource:
    """A diffusers pipeline as somebody has it: a folder, or a repository of the hub.

    Attributes:
        name: as it was given.
        place: the folder or the hub's id.
        revision: the commit of a repository; None of a folder.
        class_name: that its ``model_index.json`` names.
        identity: changes with its files: the commit, or a digest of names, sizes and ends of a folder's files.
    """

    name: str
    place: str
    revision: str | None
    class_name: str
    identity: str

    @classmethod
    def find(cls, name: str) -> "PipelineSource":
        """Look at a pipeline's index, which is all that is fetched of one on the hub.

        Args:
            name: a folder, a hub id, or ``pocket`` for the editor that comes with the package.

        Raises:
            PipelineError: there is no pipeline, or it brings code of its own.
        """
        place = str(MODEL_PATH) if name == POCKET and not Path(name).is_dir() else name
        if Path(place).is_dir():
            folder = Path(place).resolve()
            if not (folder / INDEX).is_file():
                raise PipelineError(
                    f"{name} is no folder of a diffusers pipeline: it has no {INDEX}. Name the folder that "
                    "save_pretrained wrote; edits that another program has made are measured by --edits FOLDER"
                )
            index = _read(folder / INDEX, name)
            return cls(name, str(folder), None, _class_name(index, name), _digest(folder))
        try:
            reach_the_hub(place, None)
            path = Path(hf_hub_download(place, INDEX))
        except UNREADABLE as error:
            raise not_there(name, error) from error
        # A repository's files lie in a folder that its commit names.
        commit = path.parent.name
        return cls(name, place, commit, _class_name(_read(path, name), name), commit)

    def require_whole(self) -> None:
        """Look at the files of a folder, reading no weights; the hub's are fetched whole.

        Raises:
            PipelineError: one is missing, cut off or no safetensors.
        """
        if self.revision is not None:
            return
        folder = Path(self.place)
        try:
            check_folder(folder, _read(folder / INDEX, self.name))
        except ModelFilesError as error:
            raise PipelineError(f"the pipeline {self.name!r}: {error}") from error


def not_there(name: str, error: Exception) -> PipelineError:
    """Return what is said where a pipeline cannot be loaded."""
    return PipelineError(
        f"the pipeline {name!r} cannot be loaded: it must be a folder that save_pretrained wrote, or a hub id you may "
        f"read (HF_TOKEN set, licence accepted), with its weights as safetensors. {error}"
    )


def _read(path: Path, name: str) -> Mapping[str, Any]:
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(f"the pipeline {name!r}: {path} cannot be read ({error}); fetch it anew") from error
    if not isinstance(index, dict):
        raise PipelineError(f"the pipeline {name!r}: {path} holds no object; fetch it anew")
    return index


def _class_name(index: Mapping[str, Any], name: str) -> str:
    """Return the class of an index that asks for diffusers' and transformers' own classes alone."""
    import diffusers

    found = index.get("_class_name")
    own = [
        component
        for component, library in _libraries(index)
        if library not in ("diffusers", "transformers") and not hasattr(diffusers.pipelines, library)
    ]
    if isinstance(found, list) or own:
        what = f"its {', '.join(own)}" if own else f"its class {found[-1] if found else found!r}"
        raise PipelineError(
            f"the pipeline {name!r} brings code of its own ({what}), which is not run here. Make its edits with its "
            "own program, and measure them by --edits FOLDER"
        )
    if not isinstance(found, str):
        raise PipelineError(f"the pipeline {name!r}: its {INDEX} names no _class_name; fetch it anew")
    return found


def _libraries(index: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the components of an index, each with where its class is from."""
    for component, entry in index.items():
        if isinstance(entry, list) and component != "_class_name" and entry and isinstance(entry[0], str):
            yield component, entry[0]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _OF_A_PIPELINE or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()[:16]
