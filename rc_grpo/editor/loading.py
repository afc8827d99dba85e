"""Loading an editor of whatever family: its halves, the whole of both, or diffusers' own pipeline."""

from typing import Any

import torch
from torch import nn

from rc_grpo.config import AcdConfig, EditorConfig, RolloutConfig
from rc_grpo.editor import files, lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.family import Architecture, Body, Codec, TextCounter
from rc_grpo.editor.fast import compiling, fp8
from rc_grpo.editor.finite import non_finite_weights
from rc_grpo.editor.prefix import require_prefix
from rc_grpo.editor.registry import find
from rc_grpo.editor.weights.merged import MergedPolicy


def load_architecture(editor: EditorConfig) -> Architecture:
    """Read a model's sizes from its configuration files alone.

    Raises:
        ModelNotFoundError: it is not there.
    """
    return find(editor).architecture(editor)


def load_text_counter(editor: EditorConfig) -> TextCounter:
    """Load what counts an instruction's tokens, without any weights.

    Raises:
        ModelNotFoundError: it is not there.
    """
    return find(editor).text_counter(editor)


def load_denoiser(editor: EditorConfig, seed: int) -> Denoiser:
    """Load the transformer alone, with its LoRA attached: the learner's half.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it.
    """
    return Denoiser(_load_body(editor), editor, seed)


def load_editor(editor: EditorConfig, seed: int) -> Editor:
    """Load the whole editor, with its LoRA attached as adapters that can train.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it.
    """
    codec = find(editor).codec(load_pipeline(editor, transformer=None), editor, offload=False)
    return Editor(_load_body(editor), codec, editor, seed)


def load_rollout_editor(editor: EditorConfig, rollout: RolloutConfig, seed: int) -> Editor:
    """Load the whole editor as a rollout wants it: LoRA merged into the weights, blocks compiled if so configured.

    Args:
        editor: which one.
        rollout: whether projections multiply in float8, and text encoders wait in host memory.
        seed: of the run.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it.
        ValueError: float8 is asked for where there is none.
    """
    body = _load_body(editor)
    if rollout.fp8 or (files.resolve_device(editor).type == "cuda" and files.dtype(editor) == torch.bfloat16):
        body.arrange(fp8=rollout.fp8)
    pipeline = load_pipeline(editor, transformer=None)
    return _ready(body, find(editor).codec(pipeline, editor, offload=rollout.offload_encoders), editor, seed)


def load_exploring_editor(exact: Editor, editor: EditorConfig, rollout: RolloutConfig, seed: int) -> Editor:
    """Return what makes the pools of ``rollout.explore``: a second model in float8, or ``exact`` where there is none.

    Args:
        exact: as of `load_rollout_editor`, whose encoders and decoder both use.
        editor, rollout, seed: as given there.
    """
    wanted = rollout.explore is not None and rollout.explore.fp8 and not rollout.fp8
    if not wanted or not fp8.is_there(files.resolve_device(editor), files.dtype(editor)):
        return exact
    body = _load_body(editor)
    body.arrange(fp8="gemm")
    return _ready(body, exact.codec, editor, seed)


def load_pipeline(editor: EditorConfig, **components: Any) -> Any:
    """Load diffusers' own pipeline on the editor's device; a component given as None is left out.

    Raises:
        ModelNotFoundError: there is no such folder or hub id, or no access to it, or its weights are no numbers.
    """
    loaded = find(editor).load_pipeline(editor, files.resolve_device(editor), files.dtype(editor), **components)
    for name, component in getattr(loaded, "components", {}).items():
        if isinstance(component, nn.Module):
            _require_numbers(component, name, editor)
    return loaded


def check_model(editor: EditorConfig, acd: AcdConfig) -> None:
    """Check, loading no weights, that the model's files are whole and that it has what LoRA and ACD name.

    Raises:
        ModelNotFoundError: it is not there, or a file of it is missing, cut off or no safetensors.
        ValueError: a LoRA's target, a layer, a direction or a prefix is not, or sources have a size that it cannot show
            them at, or are more than it takes.
    """
    family = find(editor)
    if editor.sources > family.sources:
        raise ValueError(
            f"editor.sources is {editor.sources}, and {editor.model} is of a family that takes {family.sources} at most"
        )
    if editor.source_resolution is not None and family.source_resolution is None:
        raise ValueError(
            f"editor.source_resolution is {editor.source_resolution}, and {editor.model} is of a family that shows a "
            "source at the edit's own size; leave it out"
        )
    files.check_files(editor)
    architecture = load_architecture(editor)
    require_prefix(editor, architecture.shares_prefix)
    lora.adapted(architecture.projections, editor.lora.targets)
    layers = architecture.layers
    if acd.enabled and acd.direction not in architecture.directions:
        raise ValueError(
            f"rollout.acd.direction is {acd.direction}, and the text of {editor.model} never sees the image that is "
            "made, so that its attention concentrates nowhere; set rollout.acd.direction="
            f"{min(architecture.directions)}"
        )
    chosen = acd.chosen(layers)
    beyond = [layer for layer in chosen if layer >= layers]
    if acd.enabled and (beyond or not chosen):
        raise ValueError(f"rollout.acd.layers names {beyond or 'no layer'}; {editor.model} has layers 0..{layers - 1}")


def _ready(body: Body, codec: Codec, editor: EditorConfig, seed: int) -> Editor:
    loaded = Editor(body, codec, editor, seed, MergedPolicy)
    if editor.compile:
        compiling.compile_blocks(body)
    return loaded


def _load_body(editor: EditorConfig) -> Body:
    family = find(editor)
    transformer = family.load_transformer(editor, files.resolve_device(editor), files.dtype(editor))
    _require_numbers(transformer, "transformer", editor)
    return family.body(transformer, editor)


def _require_numbers(model: nn.Module, name: str, editor: EditorConfig) -> None:
    if broken := non_finite_weights(model):
        raise files.ModelNotFoundError(
            f"editor.model {editor.model!r} cannot be used: {len(broken)} weights of its {name} hold a NaN or an "
            f"infinity (first: {', '.join(broken[:3])}). Fetch it anew, or convert it with more range, as bfloat16 has"
        )
