"""What another editor's pipeline takes of an edit, read from the signature of its call: no list of editors anywhere."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import Field, PositiveInt

from rc_grpo.config.base import Strict
from rc_grpo.editor.reference.source import PipelineError

SDEDIT_STRENGTH = 0.75
"""Share of the noise that an image-to-image pipeline adds to the source: SDEdit's, where nothing else is asked for."""

NEGATIVE = " "
"""Guidance by a second pass, where it is an argument of its own, is off without a negative prompt: one of no words."""

_BY_ITSELF = "make its edits with a program of your own, and measure them by --edits FOLDER"
_STEERING = ("control_image", "controlnet", "adapter")
"""Arguments and components of pipelines whose image is no source, but a drawing of what to make: edges, poses."""

_PLAIN = {"steps": "num_inference_steps", "image_guidance": "image_guidance_scale", "strength": "strength"}


class Options(Strict):
    """How another editor's pipeline is run; None is as its makers have it."""

    steps: PositiveInt | None = Field(None, le=10_000)
    guidance: float | None = Field(None, ge=0, le=1000)
    image_guidance: float | None = Field(None, ge=0, le=1000)
    strength: float | None = Field(None, gt=0, le=1)


@dataclass(frozen=True)
class Terms:
    """How a pipeline is called.

    Attributes:
        image: its argument for the source.
        listed: the source is given in a list.
        mask: its argument for the mask; None where it takes none.
        sized: takes the height and width of the edit.
        area: takes the area of the edit, and whether it may choose sizes of its own.
        seeded: takes a generator.
        plain: what it is called with whatever the task, in JSON's types.
        lacks: what it cannot be told, in words.
    """

    image: str
    listed: bool
    mask: str | None
    sized: bool
    area: frozenset[str]
    seeded: bool
    plain: Mapping[str, Any]
    lacks: tuple[str, ...]

    @classmethod
    def of(cls, called: str, call: Callable[..., Any], options: Options, components: Collection[str] = ()) -> "Terms":
        """Read a signature.

        Args:
            called: the pipeline, for messages.
            call: its ``__call__``, unbound.
            options: what is asked for.
            components: that the pipeline is made of.

        Raises:
            PipelineError: it edits no image by words, needs what a benchmark has not, or does not take an option.
        """
        takes = dict(list(inspect.signature(call).parameters.items())[1:])
        image = next((name for name in ("image", "images") if name in takes), None)
        if image is None or "prompt" not in takes:
            lacking = " and no ".join(
                word for word, there in (("image", image), ("prompt", "prompt" in takes)) if not there
            )
            raise PipelineError(
                f"{called} takes no {lacking}, and an editor is given both; name the folder of a pipeline that edits "
                "an image by words, or measure edits that it has made by --edits FOLDER"
            )
        if {"num_frames", "frames"} & takes.keys():
            raise PipelineError(f"{called} makes video; {_BY_ITSELF}")
        if steering := [name for name in _STEERING if name in takes or name in components]:
            raise PipelineError(
                f"{called} is steered by an image ({', '.join(steering)}) that no task of a benchmark has; {_BY_ITSELF}"
            )
        mask = next((name for name in ("mask_image", "mask") if name in takes), None)
        plain = _plain(called, takes, options, masked=mask is not None)
        found = cls(
            image=image,
            listed=_is_listed(takes[image].annotation),
            mask=mask,
            sized={"height", "width"} <= takes.keys(),
            area=frozenset({"max_area", "_auto_resize"} & takes.keys()),
            seeded="generator" in takes,
            plain=plain,
            lacks=_lacks(takes, mask),
        )
        known = {image, mask, "prompt", "height", "width", "generator", *plain}
        if unfilled := [name for name, one in takes.items() if _is_needed(one) and name not in known]:
            raise PipelineError(f"{called} needs {', '.join(unfilled)}, which no task of a benchmark has; {_BY_ITSELF}")
        return found

    @property
    def in_words(self) -> str:
        """What it takes and what it does not, in one sentence."""
        shown = ", ".join(f"{name} {value!r}" for name, value in self.plain.items() if name != "output_type")
        given = f"is given the mask ({self.mask})" if self.mask else ""
        lacking = f"takes no {' and no '.join(self.lacks)}" if self.lacks else ""
        return ", ".join(filter(None, (given, lacking, f"runs with {shown}" if shown else "")))

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {"takes_mask": self.mask is not None, "takes_no": list(self.lacks), "arguments": dict(self.plain)}


def _plain(called: str, takes: Mapping[str, inspect.Parameter], options: Options, *, masked: bool) -> dict[str, Any]:
    """Return the arguments that are the same for every task; an option that is not taken is an error."""
    names = dict(_PLAIN, guidance=_guidance(takes))
    for option, name in names.items():
        if getattr(options, option) is not None and name not in takes:
            raise PipelineError(f"{called} takes no {name}; leave --{option.replace('_', '-')} out")
    chosen = {option: takes[name].default for option, name in names.items() if name in takes}
    if "strength" in chosen and not masked:
        chosen["strength"] = SDEDIT_STRENGTH
    chosen |= {option: value for option in chosen if (value := getattr(options, option)) is not None}
    plain = {names[option]: value for option, value in chosen.items() if value not in (None, inspect.Parameter.empty)}
    steps, strength = plain.get("num_inference_steps"), plain.get("strength")
    if isinstance(steps, int) and isinstance(strength, float) and steps * strength < 1:
        raise PipelineError(
            f"{called}: of {steps} steps a strength of {strength:g} leaves none; raise --steps or --strength"
        )
    by_second_pass = plain.get("true_cfg_scale", takes["true_cfg_scale"].default if "true_cfg_scale" in takes else None)
    if isinstance(by_second_pass, int | float) and by_second_pass > 1 and "negative_prompt" in takes:
        plain |= {"true_cfg_scale": by_second_pass, "negative_prompt": NEGATIVE}
    return plain | ({"output_type": "np"} if "output_type" in takes else {})


def _guidance(takes: Mapping[str, inspect.Parameter]) -> str:
    """Return the argument that guides: where one is off as published, the other one does."""
    if "true_cfg_scale" in takes and ("guidance_scale" not in takes or takes["guidance_scale"].default is None):
        return "true_cfg_scale"
    return "guidance_scale"


def _lacks(takes: Mapping[str, inspect.Parameter], mask: str | None) -> tuple[str, ...]:
    words = {
        "mask": mask is not None,
        "size": {"height", "width"} <= takes.keys(),
        "guidance": _guidance(takes) in takes,
        "negative prompt": "negative_prompt" in takes,
        "number of steps": "num_inference_steps" in takes,
        "generator": "generator" in takes,
    }
    return tuple(word for word, there in words.items() if not there)


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _is_listed(annotation: Any) -> bool:
    """Tell whether an annotation allows a list and no single image."""
    if isinstance(annotation, str):
        kinds = [part.strip().lower() for part in annotation.split("|")]
        return all(kind.startswith("list") for kind in kinds if kind != "none")
    # A list's own arguments are its items', and those of a union its members.
    members = (annotation,) if annotation is list or get_origin(annotation) is list else get_args(annotation)
    inside = [member for member in members if member is not NoneType]
    return bool(inside) and all(member is list or get_origin(member) is list for member in inside)
