"""Models of diffusers and transformers loaded whole: safetensors alone, and every weight out of a file.

Asked the plain way, both libraries go on where a file lacks a weight: transformers fills it with random numbers,
diffusers leaves it without a value, and each says so in a log. Where there are no safetensors, both read pickles.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from rc_grpo.storable import first_line

_OF_A_FILE = (SafetensorError, ValueError, RuntimeError, LookupError, TypeError)
"""What is raised where a file's bytes or shapes do not fit the configuration beside it."""
_AGAIN = "Save or fetch it anew"


class WeightsError(ValueError):
    """The weights of a model are not those of its configuration; the message names what, and a reason."""


def load_model(kind: Any, place: str, **options: Any) -> Any:
    """Load one model.

    Args:
        kind: a class of diffusers or transformers that has ``from_pretrained``.
        place: folder or hub id.
        **options: of ``from_pretrained``, such as ``subfolder``, ``revision`` and ``dtype``.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        WeightsError: a weight is missing or has another shape, or a file is cut off.
        OSError: the files are not there as safetensors.
    """
    what = f"its {options['subfolder']}" if "subfolder" in options else f"{place!r}, taken for a {kind.__name__},"
    try:
        model, found = kind.from_pretrained(place, use_safetensors=True, output_loading_info=True, **options)
    except _OF_A_FILE as error:
        raise WeightsError(f"{what} cannot be read ({first_line(error)}). {_AGAIN}") from error
    if missing := sorted(found["missing_keys"]):
        raise WeightsError(f"{what} lacks {len(missing)} of its weights (first: {', '.join(missing[:3])}). {_AGAIN}")
    return model


def load_pipeline(kind: Any, place: str, revision: str | None, dtype: torch.dtype, **given: Any) -> Any:
    """Load a pipeline of diffusers, each of its models by `load_model`.

    Args:
        kind: its class.
        place: folder or hub id.
        revision: on the hub.
        dtype: of its models.
        **given: components in the place of the pipeline's, None for one that is left out, and its other arguments.

    Raises:
        WeightsError: as of `load_model`.
        OSError: the files are not there as safetensors.
    """
    # All files at once, as the pipeline does it: each model would ask the hub for its own.
    folder = place if Path(place).is_dir() else kind.download(place, revision=revision, use_safetensors=True, **given)
    taken = set(inspect.signature(kind.__init__).parameters) - set(given)
    for name, model in _models(kind.load_config(folder)).items():
        if name in taken:
            given[name] = load_model(model, folder, subfolder=name, dtype=dtype)
    return kind.from_pretrained(folder, use_safetensors=True, dtype=dtype, **given)


def _models(index: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes of the components in an index that have weights."""
    import diffusers
    import transformers

    found = {}
    for name, entry in index.items():
        if not (isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
            continue
        library, class_name = entry
        # A pipeline's own component, as its safety checker, is named by the pipeline's folder in diffusers.
        homes = {"diffusers": diffusers, "transformers": transformers}
        kind = getattr(homes.get(library) or getattr(diffusers.pipelines, library, None), class_name, None)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            found[name] = kind
    return found
