"""Where an editor's files are, and what it is loaded onto: what every family asks before it loads."""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from rc_grpo.config import EditorConfig
from rc_grpo.editor.weights import components
from rc_grpo.editor.weights.on_disk import ModelFilesError, read_json
from rc_grpo.pocket import MODEL_PATHS

logger = logging.getLogger(__name__)
POCKET, FULL_SIZE = "pocket", "full-size"
INDEX = "model_index.json"
REACH_DEADLINE_S = 5.0
_PACKAGED = ", ".join(map(repr, MODEL_PATHS))

_POCKET_REMARKS = {
    "diffusers.configuration_utils": "shift_factor",
    "diffusers.pipelines.pipeline_utils": "AutoencoderKLHunyuanImage",
}
"""A word of what diffusers warns of in the packaged editor, by logger: an autoencoder of a class that the pipeline runs
without listing it, and the one number of its configuration that the pipeline reads and the class has no name for."""


class ModelNotFoundError(ValueError):
    """The editor named by the configuration cannot be loaded."""


def model_source(editor: EditorConfig) -> str:
    """Return the folder or hub id behind ``editor.model``.

    Raises:
        ModelNotFoundError: the configuration names none.
    """
    if not editor.model:
        raise ModelNotFoundError(
            f"editor.model is not set: name a diffusers folder, a hub id, {_PACKAGED} or {FULL_SIZE!r}"
        )
    return str(MODEL_PATHS.get(editor.model, editor.model))


def resolve_device(editor: EditorConfig) -> torch.device:
    """Return the device that ``editor.device`` names; `auto` takes CUDA where there is one.

    Raises:
        ValueError: CUDA is asked for and not there.
    """
    if editor.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("editor.device is cuda, but this process sees no CUDA device; give its pool num_gpus > 0")
    if editor.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(editor.device)


def dtype(editor: EditorConfig) -> torch.dtype:
    """Return the precision of the base model."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[editor.dtype]


def pipeline_class(editor: EditorConfig) -> str:
    """Return the class that a model's ``model_index.json`` names.

    Raises:
        ModelNotFoundError: there is no such file.
    """
    with naming_the_model(editor):
        source = Path(model_source(editor))
        index = source / INDEX
        if not source.is_dir():
            index = Path(hf_hub_download(editor.model, INDEX, revision=editor.revision))
        return str(read_json(index)["_class_name"])


def check_files(editor: EditorConfig) -> None:
    """Look at the files of a model that lies in a folder, loading none; the hub's are fetched whole.

    Raises:
        ModelNotFoundError: one is missing, cut off or no safetensors, or the transformer is quantised.
    """
    folder = Path(model_source(editor))
    # A family may have another layout; of a folder with neither, whoever reads its sizes says what it lacks.
    if not (folder / INDEX).is_file():
        return
    with naming_the_model(editor):
        index = read_json(folder / INDEX)
        components.check_folder(folder, index)
        components.check_encoders(folder, index)
        if method := components.quantised(folder / "transformer"):
            raise ModelFilesError(
                f"its transformer was saved quantised ({method}), and a LoRA is merged into plain weights here. Name "
                "the model that it was made of; rollout.fp8 and learner.fp8 multiply in float8"
            )


@contextmanager
def naming_the_model(editor: EditorConfig) -> Iterator[None]:
    """Load files of an editor inside the context.

    Raises:
        ModelNotFoundError: they are not there, or not whole, with the ways out.
    """
    # Here, so that finding a family loads no model code.
    import diffusers
    import transformers

    # An actor's log is no place for progress bars that redraw themselves.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        if editor.model != FULL_SIZE:
            reach_the_hub(model_source(editor), editor.revision)
        with _unremarked(_POCKET_REMARKS if editor.model == POCKET else {}):
            yield
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ModelNotFoundError(
            f"editor.model {editor.model!r} cannot be loaded: it must be a diffusers folder, a hub id you may read "
            f"(HF_TOKEN set, licence accepted), {_PACKAGED}, or {FULL_SIZE!r}. {error}"
        ) from error
    except ModelFilesError as error:
        raise ModelNotFoundError(f"editor.model {editor.model!r} cannot be loaded: {error}") from error


@contextmanager
def _unremarked(remarks: Mapping[str, str]) -> Iterator[None]:
    """Drop log records that hold a logger's word."""
    filters = [(logging.getLogger(name), partial(_lacks, word)) for name, word in remarks.items()]
    for logger, lacks in filters:
        logger.addFilter(lacks)
    try:
        yield
    finally:
        for logger, lacks in filters:
            logger.removeFilter(lacks)


def _lacks(word: str, record: logging.LogRecord) -> bool:
    return word not in record.getMessage()


def pinned(name: str) -> tuple[str, str | None]:
    """Return a folder or hub id, and the revision that follows a hub id as ``@REVISION``; None without one.

    A folder's name may have an ``@`` in it.
    """
    source, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
    return source, revision or None


def named(source: str | Path, revision: str | None) -> str:
    """Return what `pinned` takes apart."""
    return f"{source}@{revision}" if revision else str(source)


def reach_the_hub(source: str, revision: str | None, index: str = INDEX) -> None:
    """Fail at once where the hub would be asked for half a minute a file, and nothing of the model is here.

    Args:
        source: a folder or hub id.
        revision: on the hub.
        index: a file that every such model has.

    Raises:
        OSError: the hub cannot be reached, and its cache does not have the model.
    """
    hub = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or getproxies() or hub.hostname is None or Path(source).is_dir():
        return
    try:
        socket.create_connection((hub.hostname, hub.port or 443), REACH_DEADLINE_S).close()
    except OSError as error:
        if not isinstance(try_to_load_from_cache(source, index, revision=revision), str):
            raise OSError(
                f"{constants.ENDPOINT} cannot be reached ({error}), and its cache has no such model"
            ) from error
        logger.warning("%s cannot be reached (%s); HF_HUB_OFFLINE=1 takes the cache at once", constants.ENDPOINT, error)
