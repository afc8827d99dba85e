"""CLIP models as judges load them: safetensors alone, one line where they are not to be had."""

from transformers import CLIPModel, CLIPProcessor

from rc_grpo.editor.files import pinned
from rc_grpo.evaluation.clip import Clip
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
        JudgeSetupError: there is none, it is no CLIP model, or its weights are no safetensors.
    """
    try:
        model = CLIPModel.from_pretrained(name, revision=revision, use_safetensors=True)
        source, of_words = pinned(processor) if processor else (name, revision)
        words = CLIPProcessor.from_pretrained(source, revision=of_words)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [repr(error)])[0]
        raise JudgeSetupError(
            f"no CLIP model {name!r} with safetensors, which a judge of kind {kind} wants ({said}). Name a folder that "
            "holds one (model: FOLDER), or let this machine reach the hub"
        ) from error
    return Clip(model, words, device)
