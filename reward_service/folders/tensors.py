"""Whether a judge's folder holds every tensor that its architecture has, which a server does not ask.

vLLM joins projections of a layer into one and takes it for loaded with the first of them: where another is in no file,
what was in memory scores.
"""

from pathlib import Path

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as KINDS

from rc_grpo.editor.weights.on_disk import ModelFilesError
from rc_grpo.editor.weights.tensors import require_tensors
from reward_service.folders.judge_folder import JudgeFolderError, way_out


def require_judge(folder: Path) -> None:
    """Hold the tensors in a folder against the vision-language model that its configuration names.

    One of another kind is passed over: it is refused for that.

    Raises:
        JudgeFolderError: a tensor of the model is in no file, or has another shape there.
    """
    config = type(AutoConfig.from_pretrained(folder))
    if config not in KINDS:
        return
    try:
        require_tensors(folder, KINDS[config])
    except ModelFilesError as error:
        raise JudgeFolderError(
            f"{error}, in whose place a server takes what is in memory; {way_out(folder)}"
        ) from error
