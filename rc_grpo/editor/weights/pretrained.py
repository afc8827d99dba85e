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

from rc_grpo.editor.weights.components import check_folder, classes_of, is_model
from rc_grpo.editor.weights.on_disk import AGAIN, ModelFilesError
from rc_grpo.storable import first_line

_OF_A_FILE = (SafetensorError, ValueError, RuntimeError, LookupError, TypeError, ImportError)
"""What is raised where a file's bytes or shapes do not fit the configuration beside it, or a package that it was
quantised with is not there."""


def load_model(kind: Any, place: str, **options: Any) -> Any:
    """Load one model.

    Args:
        kind: a class of diffusers or transformers that has ``from_pretrained``.
        place: folder or hub id.
        **options: of ``from_pretrained``, such as ``subfolder``, ``revision`` and ``dtype``.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        ModelFilesError: a weight is missing or has another shape, or a file is cut off.
        OSError: the files are not there as safetensors.
    """
    what = f"its {options['subfolder']}" if "subfolder" in options else f"{place!r}, taken for a {kind.__name__},"
    try:
        model, found = kind.from_pretrained(place, use_safetensors=True, output_loading_info=True, **options)
    except _OF_A_FILE as error:
        raise ModelFilesError(f"{what} cannot be read ({first_line(error)}); {AGAIN}") from error
    if missing := sorted(found["missing_keys"]):
        raise ModelFilesError(f"{what} lacks {len(missing)} of its weights (first: {', '.join(missing[:3])}); {AGAIN}")
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
        ModelFilesError: as of `load_model` and `rc_grpo.editor.weights.components.check_folder`; or what goes with its
            models cannot be read, or is not of them.
        OSError: there is no such pipeline.
    """
    # All files at once, as the pipeline does it: each model would ask the hub for its own.
    folder = place if Path(place).is_dir() else kind.download(place, revision=revision, use_safetensors=True, **given)
    taken = set(inspect.signature(kind.__init__).parameters) - set(given)
    index = {name: entry for name, entry in kind.load_config(folder).items() if name in taken}
    check_folder(Path(folder), index)
    for name, component in classes_of(index).items():
        if is_model(component):
            given[name] = load_model(component, folder, subfolder=name, dtype=dtype)
    try:
        loaded = kind.from_pretrained(folder, use_safetensors=True, dtype=dtype, **given)
    except _OF_A_FILE as error:
        raise ModelFilesError(f"what lies beside its models cannot be read ({first_line(error)}); {AGAIN}") from error
    _require_words(loaded.components)
    return loaded


def _require_words(components: Mapping[str, Any]) -> None:
    """Raise where a tokenizer knows more words than the encoder of its texts, which would fail at the first of them."""
    # Here, so that finding a family loads no model code.
    from transformers import PreTrainedModel

    for name, encoder in components.items():
        tokenizer = components.get(name.replace("text_encoder", "tokenizer"))
        # Without tokens that were added: those that nobody asks for need no embedding.
        words = getattr(tokenizer, "vocab_size", 0)
        if not (name.startswith("text_encoder") and isinstance(encoder, PreTrainedModel) and words):
            continue
        known = encoder.get_input_embeddings().num_embeddings
        if words > known:
            raise ModelFilesError(
                f"its tokenizer has {words} tokens, its {name} knows {known}: they are not of one model"
            )
