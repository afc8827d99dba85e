"""CLIP models as judges load them: safetensors alone, one line where they are not to be had."""

from transformers import CLIPModel, CLIPProcessor

from rc_grpo.editor.files import named, pinned
from rc_grpo.evaluation.clip import Clip
from rc_grpo.storable import first_line
from reward_service.judge import JudgeSetupError


def load_clip(name: str, device: str, *, kind: str, revision: str | None = None, processor: str | None = None) -> Clip:
    """Load a CLIP model by its folder or hub id.

    Args:
        name: folder or hub id of model and, if no other is named, processor.
        device: torch's name of where to compute.
        kind: of the judge, for the error.
        revision: of the model on the hub.
        processor: folder or hub id (``@REVISION`` may follow) of tokenizer and image processor.

    Raises:
        JudgeSetupError: there is none, it is no CLIP model, its weights are no safetensors, or there is no processor.
    """
    try:
        model = CLIPModel.from_pretrained(name, revision=revision, use_safetensors=True)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise JudgeSetupError(
            f"no CLIP model {named(name, revision)!r} with safetensors, which a judge of kind {kind} wants "
            f"({first_line(error)}). Name a folder that holds one (model: FOLDER), or let this machine reach the hub"
        ) from error
    return Clip(model, load_processor(name, revision, processor, kind=kind), device)


def load_processor(name: str, revision: str | None, elsewhere: str | None, *, kind: str) -> CLIPProcessor:
    """Load a CLIP model's tokenizer and image processor.

    Args:
        name: folder or hub id of the model.
        revision: of it on the hub.
        elsewhere: folder or hub id (``@REVISION`` may follow) where they lie if not with the model.
        kind: of the judge, for the error.

    Raises:
        JudgeSetupError: they are not to be had.
    """
    source, of_source = pinned(elsewhere) if elsewhere else (name, revision)
    try:
        return CLIPProcessor.from_pretrained(source, revision=of_source)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise JudgeSetupError(
            f"no tokenizer and image processor of CLIP in {named(source, of_source)!r}, which a judge of kind {kind} "
            f"wants ({first_line(error)}). Name a folder that holds them (processor: FOLDER), or let this machine "
            "reach the hub"
        ) from error
