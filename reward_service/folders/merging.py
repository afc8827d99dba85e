"""An EditScore judge out of its two halves: a LoRA adapter merged into the vision-language model it was trained on.

vLLM can serve the adapter as a LoRA, but then leaves out what the adapter changed on the vision side and says nothing.
So it is merged beforehand, and the merged model, which is proven to answer like the two halves, is served.
"""

import gc
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from rc_grpo.editor.weights.on_disk import WEIGHTS_INDEX, ModelFilesError
from rc_grpo.editor.weights.pretrained import load_model
from reward_service.folders.adapter import ADAPTER_WEIGHTS, bind, check_adapter_folder, fold
from reward_service.folders.judge_folder import (
    ADAPTER_CONFIG,
    MANIFEST,
    FileRecord,
    JudgeFolderError,
    Manifest,
    Source,
    check_judge_folder,
    check_weights,
    read_manifest,
)
from reward_service.folders.parity import Questionnaire, compare, require_effect
from reward_service.folders.whole_folder import locked, whole_folder
from reward_service.prompts import Family

log = logging.getLogger(__name__)

DType = Literal["auto", "bfloat16", "float32"]
"""Of the merged weights; ``auto`` is the base's own."""

TOLERANCES: dict[str, float] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}
"""How much of the adapter's effect merging may cost, by dtype. In float32 merging only changes the order of sums, which
costs a millionth. In bfloat16 a merged weight is rounded where an unmerged one is not and a logit has 8 bits: 0.05 to
0.08 of the effect in 7B random weights, where a vision side left out costs 0.74 and a lost adapter 1."""

_SIDE_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*")
"""Tokenizer, processors, chat template, generation config: taken over from the base as they are."""

_NOT_TAKEN_OVER = ("config.json", WEIGHTS_INDEX, MANIFEST)
_DTYPE_KEYS = ("dtype", "torch_dtype")


class MergeError(ValueError):
    """A judge cannot be merged; the message says why and what to do."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge came to.

    Attributes:
        out: the folder to serve.
        already_merged: it was there before, made of the same files, and was left alone.
        manifest: how it was made.
    """

    out: Path
    already_merged: bool
    manifest: Manifest

    @property
    def in_words(self) -> str:
        """What was done, and how well the merged model answers as base and adapter do."""
        parity = self.manifest.parity
        return (
            f"{self.out}: {'already merged, left alone' if self.already_merged else 'merged'}\n"
            f"max |delta logit| against base + adapter {parity.error:.3g}, what the adapter moves {parity.effect:.3g}; "
            f"same first choice at {parity.top1_agreement:.1%} of {parity.positions} positions "
            f"(base alone: {parity.top1_agreement_base:.1%})"
        )


@dataclass(frozen=True)
class _Half:
    """The base or the adapter, on this machine."""

    name: str
    folder: Path
    revision: str | None

    def source(self, files: list[str]) -> Source:
        """Hash the files that go into the merge."""
        records = {name: FileRecord.of(self.folder / name) for name in files}
        return Source(name=self.name, revision=self.revision, files=records)


def merge_judge(
    base: str,
    adapter: str,
    out: Path,
    *,
    dtype: DType = "auto",
    tolerance: float | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    on_phase: Callable[[str], None] = log.info,
) -> MergeReport:
    """Merge a LoRA adapter into its vision-language model, so that a stock server serves the result.

    Holds one copy of the model at a time, on the CPU: 7B parameters in bfloat16 take 16 GB, beside the base's mapped
    files, which the system may drop. The folder appears whole or not at all; one that is there is never written to.

    Args:
        base: folder or hub id of a Qwen2.5-VL or Qwen3-VL.
        adapter: folder or hub id of a PEFT LoRA adapter.
        out: the folder to make.
        dtype: of the merged weights.
        tolerance: bound on what merging costs, as a share of the adapter's effect; by default as `TOLERANCES` has it.
        revision: of the base on the hub.
        adapter_revision: of the adapter on the hub.
        on_phase: told what is being done, in a few words.

    Raises:
        MergeError: base or adapter cannot be had or used, or ``out`` was made of others.
        AdapterError: the adapter does not fit the base, or only in part.
        JudgeFolderError: ``out`` is there but is not whole.
        ParityError: the merged model does not answer like its halves, or the adapter changes nothing.
        FolderBusyError: another process makes ``out`` and did not finish.
    """
    on_phase("finding base and adapter")
    of_base = _found(base, revision, [*_SIDE_FILES, "*.safetensors"])
    of_adapter = _found(adapter, adapter_revision, [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    config = _base_config(of_base)
    check_adapter_folder(of_adapter.folder)
    resolved = _resolved(dtype, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out):
        there = _there(out) if out.exists() else None
        on_phase("hashing base and adapter")
        base_source = of_base.source(["config.json", *check_weights(of_base.folder), *_side_files(of_base.folder)])
        adapter_source = of_adapter.source([ADAPTER_CONFIG, ADAPTER_WEIGHTS])
        if there is not None:
            on_phase(f"checking {out}, which is there already")
            _require_same(out, there, base_source, adapter_source, resolved)
            check_judge_folder(out, verify_digests=True)
            return MergeReport(out, already_merged=True, manifest=there)
        with whole_folder(out) as folder:
            tensors, unmerged, alone = _merge_into(folder, of_base, of_adapter, config, resolved, on_phase)
            # Modules refer to each other in circles; 7B parameters must be gone before they are read back.
            gc.collect()
            on_phase("reading back, asking the merged model")
            check_judge_folder(folder)
            merged = _questionnaire(folder, config).logits(_model(folder, resolved))
            parity = compare(unmerged, alone, merged, TOLERANCES[resolved] if tolerance is None else tolerance)
            on_phase("hashing the merged model")
            manifest = Manifest(
                base=base_source,
                adapter=adapter_source,
                dtype=resolved,
                tensors=tensors,
                parity=parity,
                versions={package: version(package) for package in ("torch", "transformers", "peft")},
                files={file.name: FileRecord.of(file) for file in sorted(folder.iterdir())},
            )
            (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return MergeReport(out, already_merged=False, manifest=manifest)


def _merge_into(
    folder: Path, base: _Half, adapter: _Half, config: dict[str, Any], dtype: str, on_phase: Callable[[str], None]
) -> tuple[int, Tensor, Tensor]:
    """Write the merged model; return the adapter's tensors and the logits of both halves and of the base alone."""
    questionnaire = _questionnaire(base.folder, config)
    on_phase(f"loading the base in {dtype}")
    bound = bind(_model(base.folder, dtype), adapter.folder)
    on_phase("asking base and adapter unmerged")
    unmerged = questionnaire.logits(bound.model)
    with bound.model.disable_adapter():
        alone = questionnaire.logits(bound.model)
    require_effect(unmerged, alone)
    on_phase(f"merging {bound.tensors} adapter tensors")
    merged = fold(bound)
    on_phase("writing")
    merged.save_pretrained(folder, max_shard_size="5GB")
    for name in _side_files(base.folder):
        shutil.copyfile(base.folder / name, folder / name)
    # The base's own rather than what this version of transformers makes of it, which an older one may not read.
    (folder / "config.json").write_text(
        json.dumps({"dtype": dtype} | _in_dtype(config, dtype), indent=2) + "\n", encoding="utf-8"
    )
    for path in folder.iterdir():
        # safetensors are written for their owner alone; a server may run as somebody else.
        path.chmod((folder / "config.json").stat().st_mode)
    return bound.tensors, unmerged, alone


def _found(name: str, revision: str | None, patterns: list[str]) -> _Half:
    if Path(name).is_dir():
        if revision is not None:
            raise MergeError(f"{name} is a folder here, so revision {revision!r} means nothing; leave it out")
        return _Half(name, Path(name), None)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise MergeError(f"{name} is neither a folder here nor to be had from the hub: {error}") from error
    return _Half(name, folder, folder.name)


def _base_config(base: _Half) -> dict[str, Any]:
    try:
        check_judge_folder(base.folder)
    except JudgeFolderError as error:
        raise MergeError(f"base {base.name} cannot be used: {error}") from error
    if (base.folder / ADAPTER_CONFIG).exists():
        # transformers would load it along with the model, under a name of its own.
        raise MergeError(f"base {base.name} has an {ADAPTER_CONFIG} beside its weights; name a folder without one")
    config: dict[str, Any] = json.loads((base.folder / "config.json").read_bytes())
    if config.get("model_type") not in get_args(Family):
        raise MergeError(f"base {base.name} is {config.get('model_type')}; a judge is {' or '.join(get_args(Family))}")
    return config


def _resolved(dtype: DType, config: dict[str, Any]) -> str:
    named = next((config[key] for key in _DTYPE_KEYS if config.get(key)), None) if dtype == "auto" else dtype
    if named not in TOLERANCES:
        raise MergeError(f"the base's config.json says dtype {named}, none of {', '.join(TOLERANCES)}; give --dtype")
    return str(named)


def _in_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {
        key: dtype if key in _DTYPE_KEYS else _in_dtype(value, dtype) if isinstance(value, dict) else value
        for key, value in config.items()
    }


def _side_files(base: Path) -> list[str]:
    names = {path.name for pattern in _SIDE_FILES for path in base.glob(pattern) if path.is_file()}
    return sorted(names.difference(_NOT_TAKEN_OVER))


def _there(out: Path) -> Manifest:
    manifest = read_manifest(out) if out.is_dir() else None
    if manifest is None:
        raise JudgeFolderError(
            f"{out} is there but has no {MANIFEST}: it is not a merged judge, or only half of one; "
            "name another folder, or remove it if it is of no use"
        )
    check_judge_folder(out)
    return manifest


def _require_same(out: Path, there: Manifest, base: Source, adapter: Source, dtype: str) -> None:
    for what, old, new in (("base", there.base, base), ("adapter", there.adapter, adapter)):
        if old.files != new.files:
            names = sorted(old.files.keys() | new.files.keys())
            differing = next(name for name in names if old.files.get(name) != new.files.get(name))
            raise MergeError(
                f"{out} was merged from another {what}, {old.name} (revision {old.revision}), whose {differing} is not "
                f"that of {new.name}; name another folder, or remove this one"
            )
    if there.dtype != dtype:
        raise MergeError(f"{out} was merged in {there.dtype}, not in {dtype}; name another folder, or remove this one")


def _questionnaire(folder: Path, config: dict[str, Any]) -> Questionnaire:
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (ImportError, OSError, ValueError) as error:
        raise MergeError(f"the processor of {folder} cannot be loaded: {error}") from error
    return Questionnaire(processor, config["model_type"])


def _model(folder: Path, dtype: str) -> PreTrainedModel:
    try:
        return cast(PreTrainedModel, load_model(AutoModelForImageTextToText, str(folder), dtype=getattr(torch, dtype)))
    except ModelFilesError as error:
        raise MergeError(str(error)) from error
