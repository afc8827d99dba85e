"""What the folder of a diffusers pipeline must hold: every component that its index names, whole.

Looked at by names, headers and JSON alone, before anything is started: a library that misses a file fails after minutes
on a GPU, or not at all. A tokenizer without a vocabulary, for one, is made with none, and every word is unknown to it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rc_grpo.editor.weights.on_disk import AGAIN, INDEX, SAFETENSORS, ModelFilesError, check_weights, read_json
from rc_grpo.editor.weights.tensors import require_tensors

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
STEMS = ("model", "diffusion_pytorch_model")
"""Of weight files: in transformers, and in diffusers. A variant of a model has others, which are loaded by its name."""


def classes_of(index: Mapping[str, Any]) -> dict[str, type | None]:
    """Return the class of every component that a ``model_index.json`` names; None where neither library has it."""
    import diffusers
    import transformers

    homes = {"diffusers": diffusers, "transformers": transformers}
    found = {}
    for name, entry in index.items():
        if isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
            library, class_name = entry
            # A pipeline's own component, as its safety checker, is named by the pipeline's folder in diffusers.
            home = homes.get(library) or getattr(diffusers.pipelines, library, None)
            found[name] = getattr(home, class_name, None)
    return found


def is_model(kind: type | None) -> bool:
    """Whether a component's class has weights."""
    return isinstance(kind, type) and issubclass(kind, nn.Module)


def check_folder(pipeline: Path, index: Mapping[str, Any]) -> None:
    """Check the folder of a diffusers pipeline against its index.

    Args:
        pipeline: the folder.
        index: what its ``model_index.json`` holds.

    Raises:
        ModelFilesError: a component is not there; its weights are missing, cut off, of a variant alone or pickles; its
            tokenizer has no vocabulary; a JSON file of it is none.
    """
    for name, kind in classes_of(index).items():
        component = pipeline / name
        if not component.is_dir() or not any(component.iterdir()):
            raise ModelFilesError(f"its {name} is missing: there is nothing in {component}")
        for path in sorted(component.glob("*.json")):
            read_json(path)
        if is_model(kind):
            _check_weights(component)
        vocabulary = sorted({*(getattr(kind, "vocab_files_names", None) or {}).values()})
        if vocabulary and not any((component / file).is_file() for file in vocabulary):
            raise ModelFilesError(f"its {name} has no vocabulary: {component} holds none of {', '.join(vocabulary)}")


def check_encoders(pipeline: Path, index: Mapping[str, Any]) -> None:
    """Hold the tensors of a pipeline's models of transformers, its encoders, against their classes.

    Those of diffusers, whose names and shapes only loading them tells, are left to that.

    Args:
        pipeline: a folder that `check_folder` has passed.
        index: what its ``model_index.json`` holds.

    Raises:
        ModelFilesError: as of `rc_grpo.editor.weights.tensors.require_tensors`.
    """
    from transformers import PreTrainedModel

    for name, kind in classes_of(index).items():
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
            try:
                require_tensors(pipeline / name, kind)
            except ModelFilesError as error:
                raise ModelFilesError(f"{error}; {AGAIN}") from error


def quantised(component: Path) -> str | None:
    """Return how a model in a folder was quantised when it was saved; None if it was not.

    Raises:
        ModelFilesError: its configuration is no JSON.
    """
    path = component / "config.json"
    config = read_json(path) if path.is_file() else None
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return None if found is None else str(found.get("quant_method", "?") if isinstance(found, dict) else found)


def _check_weights(component: Path) -> None:
    ends = (INDEX, SAFETENSORS)
    if stem := next((stem for stem in STEMS if any((component / f"{stem}{end}").is_file() for end in ends)), None):
        try:
            check_weights(component, stem)
        except ModelFilesError as error:
            raise ModelFilesError(f"{error}; {AGAIN}") from error
        return
    files = sorted(path.name for path in component.iterdir())
    pickles = [name for name in files if name.endswith(PICKLES)]
    variants = [name for name in files if name.endswith(SAFETENSORS)]
    if pickles and not variants:
        raise ModelFilesError(
            f"the weights of its {component.name} are pickles ({pickles[0]}), which can run code, and are not read; "
            "save them as safetensors (save_pretrained does)"
        )
    why = f"it holds those of a variant, {variants[0]}; save it without one" if variants else AGAIN
    wanting = " and no ".join(f"{stem}{SAFETENSORS}" for stem in STEMS)
    raise ModelFilesError(f"its {component.name} has no weights: {component} holds no {wanting}; {why}")
