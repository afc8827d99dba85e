"""The card of an exported LoRA: what it is, what was measured of it, how it was made, how to load it."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from deploy.exporting.base import CARD, Base, base_of
from deploy.exporting.figures import Figures
from deploy.exporting.source import Source
from deploy.exporting.writing import TRANSFORMER, Layout
from rc_grpo.durable import write_whole
from rc_grpo.editor.registry import find

_BRANCHES = ("editor", "rollout", "objective", "learner", "loop", "evaluation")
CHANCE = 2
"""Standard errors that a change must exceed not to be called one that may be chance."""
_OF_THE_MACHINE = frozenset({"resources", "device", "compile", "feed", "start_from"})
"""Keys that say nothing of the weights; as little do deadlines, and where something was read."""


def write_card(
    source: Source, figures: Figures | str, to: Layout, weights: Path, repository: str | None, *, merged: bool
) -> Path:
    """Write the card beside exported weights.

    Args:
        source: the LoRA.
        figures: of these weights, or why there are none.
        to: its layout.
        weights: the file; of merged ones the folder around the transformer.
        repository: on the Hub, where it goes there.
        merged: it is in the transformer's weights.

    Returns:
        The card's file.
    """
    base = base_of(source.config.editor)
    parts = [
        f"# {source.name}",
        _what(source, base, merged=merged),
        "## Load it",
        _loading(source, to, weights, base, repository or str(weights if merged else weights.parent), merged=merged),
        "## What was measured",
        *_measured(figures),
        "## How it was made",
        *_made(source, base),
    ]
    path = (weights if merged else weights.parent) / CARD
    head = yaml.safe_dump(_metadata(base, to, merged=merged), sort_keys=False)
    write_whole(path, f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n")
    return path


def _metadata(base: Base, to: Layout, *, merged: bool) -> dict[str, Any]:
    told: dict[str, Any] = dict(base.licence)
    if base.hub_id is not None:
        told |= {"base_model": base.hub_id, "base_model_relation": "finetune" if merged else "adapter"}
    told |= {"library_name": "peft" if to == "peft" else "diffusers", "pipeline_tag": "image-to-image"}
    return told | {"tags": ["rc-grpo", "image-editing", *([] if merged else ["lora"])]}


def _what(source: Source, base: Base, *, merged: bool) -> str:
    lora = source.config.editor.lora
    revision = "" if base.revision is None else f" at revision `{base.revision}`"
    kind = "The transformer with a LoRA merged in" if merged else f"A LoRA of rank {lora.rank}"
    origin = "written" if source.run is None else "trained by region-constrained GRPO, and written"
    return (
        f"{kind} for the image editor **{base.name}**{revision}, {origin} by rc-grpo {version('rc-grpo')}.\n\n"
        f"Licence of the base model, under which what is made of it stands: {base.licence_in_words}.\n\n"
        f"Version (SHA-256 of the LoRA's weights): `{source.digest}`"
    )


def _loading(source: Source, to: Layout, weights: Path, base: Base, where: str, *, merged: bool) -> str:
    family = find(source.config.editor)
    named = base.hub_id or "BASE"
    revision = "" if base.revision is None else f', revision="{base.revision}"'
    lines = [f"from diffusers import {family.pipeline}"]
    opening = f'pipeline = {family.pipeline}.from_pretrained("{named}"{revision}'
    if merged:
        lines = [f"from diffusers import AutoModel, {family.pipeline}"]
        lines += [f'transformer = AutoModel.from_pretrained("{where}", subfolder="{TRANSFORMER}")']
        lines += [f"{opening}, transformer=transformer)"]
    elif to == "peft":
        lines = ["from peft import PeftModel", *lines, f"{opening})"]
        lines += [f'pipeline.transformer = PeftModel.from_pretrained(pipeline.transformer, "{where}")']
    elif to == "comfyui":
        node = "the node *LoraLoaderModelOnly*, at strength 1"
        return f"Put `{weights.name}` into ComfyUI's `models/loras`, and load it with {node}."
    else:
        file = "" if to == "diffusers" else f', weight_name="{weights.name}"'
        lines += [f"{opening})", f'pipeline.load_lora_weights("{where}"{file})']
    lines += ['edited = pipeline(image=image, prompt="Make the sky red").images[0]']
    of_base = "" if base.hub_id else f"\n\n`BASE` is the folder or hub id of {base.name}."
    also = "\n\nComfyUI reads the file, too: strength 1 is what was trained." if to == "kohya" else ""
    return "```python\n" + "\n".join(lines) + "\n```" + of_base + also


def _measured(figures: Figures | str) -> Iterator[str]:
    if isinstance(figures, str):
        yield f"**No figures**: {figures}. Nothing is claimed of what this LoRA does; measure it before you rely on it."
        return
    tasks = figures.gains["reward"].tasks
    before = "the base model" if figures.untrained else "what the run began with"
    yield (
        f"{tasks} held-out tasks, edited from the same noise by {before} and after update {figures.update}; the error "
        "is the standard error of the paired differences."
    )
    rows = ["| | before | after | change |", "|---|---|---|---|"]
    for name, gain in figures.gains.items():
        shown = "reward" if name == "reward" else f"reward of `{name}`"
        change = f"{gain.gain:+.4f} ± {gain.standard_error:.4f}"
        rows.append(f"| held-out {shown} | {gain.before:.4f} | {gain.after:.4f} | {change} |")
    drift = figures.drift
    rows.append(f"| background drift, less is better | {drift[0]:.4f} | {drift[1]:.4f} | {drift[1] - drift[0]:+.4f} |")
    yield "\n".join(rows)
    if abs(figures.gains["reward"].in_standard_errors) < CHANCE:
        yield f"**The change is within {CHANCE} standard errors: it may be chance.**"
    yield "The rewards are those of the run's own judges, which it may have learned to please; look at edits, too."
    if not figures.exact:
        yield (
            "The weights are not those of the evaluated version to the bit: the run wrote them at the same update, as "
            "a moving average or rounded by alpha / rank."
        )


def _made(source: Source, base: Base) -> Iterator[str]:
    if source.run is None:
        yield "The run is not known: neither its data nor its settings are said here."
        return
    judges = [f"| `{name}` | {judge.kind} | {judge.weight:g} |" for name, judge in source.config.reward.judges.items()]
    yield "\n".join(["| judge | kind | weight |", "|---|---|---|", *judges])
    data = source.run.data() or {}
    for branch, told in data.items():
        # Of a world that makes its tasks the origin says how many.
        which = told["origin"] or f"{len(told['tasks'])} tasks read from files"
        yield f"Data, {branch}: {which}; fingerprint `{told.get('digest', 'not kept')}`"
    if not data:
        yield "The run kept no fingerprint of its data."
    environment = source.run.environment or {}
    commit, machine = environment.get("commit") or "not known", environment.get("machine") or "a machine not named"
    yield f"Code: commit `{commit}`, on {machine}."
    values = source.config.model_dump()
    values["editor"]["model"] = base.name
    shown = {branch: _of_the_weights(values[branch]) for branch in _BRANCHES}
    text = yaml.safe_dump({"seed": source.config.seed, **shown}, sort_keys=False, width=100)
    yield f"<details><summary>Configuration</summary>\n\n```yaml\n{text}```\n\n</details>"


def _of_the_weights(branch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a branch of the configuration as plain values, without what is the machine's or names a place."""
    kept: dict[str, Any] = {}
    for key, value in branch.items():
        if key in _OF_THE_MACHINE or key.endswith("_deadline_s") or isinstance(value, Path):
            continue
        plain = list(value) if isinstance(value, tuple) else value
        kept[key] = _of_the_weights(plain) if isinstance(plain, Mapping) else plain
    return kept
