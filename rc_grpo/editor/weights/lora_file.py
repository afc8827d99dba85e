"""A LoRA's file as diffusers reads it: which matrices are in it, and how strongly it applies each pair of them.

What diffusers would apply and this would not, or the other way round, is refused by name: one file is one policy.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rc_grpo.editor.weights.lora_hub import local_folder

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
PREFIX = "transformer."
_METADATA = "lora_adapter_metadata"
_KNOWN = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.(?:(?P<matrix>lora_[AB])\.weight|alpha)")
_CONVERT = "load it into a diffusers pipeline and write it anew with the pipeline's save_lora_weights"

# What names look like that others write, what that is, and what to do about it.
_FOREIGN = (
    (r"lora_magnitude_vector|dora_scale", "DoRA's magnitudes, which only DoRA applies", "train without use_dora"),
    (r"\.lora_[AB]\.bias$", "a bias beside the matrices", "train without lora_bias"),
    (r"lora_te|^text_encoder", "a text encoder's part, and text encoders stay what they are", "leave that part out"),
    (r"lora_unet_|lora_down|lora_up|lora\.down|lora\.up", "a name as kohya's trainers write it", _CONVERT),
    (r"^base_model\.", "a name as PEFT writes it", _CONVERT),
    (r"^diffusion_model\.|double_blocks|single_blocks|processor", "a name of the model's first code", _CONVERT),
    (r"lok[rt]_|hada_", "a part of another kind of adapter", "train a LoRA"),
    (r"lora_[AB]", "a LoRA of something else", "bring one of the editor's transformer"),
    (r"", "no part of a LoRA", "a whole model's weights are named by editor.model"),
)

# What of PEFT's configuration is honoured here, or says nothing of what is applied.
_HONOURED = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"}
_IDLE = {"auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision"} | {
    "target_modules",
    "task_type",
    "runtime_config",
}
_INITIAL = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base model's weights alone; what they begin with is overwritten."""


@dataclass(frozen=True)
class LoraFile:
    """A file whose names and metadata are in order.

    Attributes:
        path: of the file.
        shapes: of the matrices by canonical name, see `rc_grpo.editor.lora.parameters`; A and B of each module.
        scales: what the product of each module's matrices is multiplied by.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    scales: Mapping[str, float]

    def rank(self, module: str) -> int:
        """Return the rank of a module's matrices."""
        return self.shapes[f"{module}.lora_A.weight"][0]

    def weights(self, scale: float) -> dict[str, Tensor]:
        """Return the matrices for layers that multiply their product by ``scale``, float32.

        What the file multiplies by beyond that is in B: exact for powers of two.

        Raises:
            ValueError: a matrix holds a NaN or an infinity, or its numbers are too large for float32.
        """
        with _opened(self.path) as file:
            weights = {name: file.get_tensor(PREFIX + name) for name in self.shapes}
        for module, of_file in self.scales.items():
            if of_file != scale:
                name = f"{module}.lora_B.weight"
                weights[name] = weights[name].double() * (of_file / scale)
        weights = {name: tensor.float() for name, tensor in weights.items()}
        for name, tensor in weights.items():
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{self.path}: {PREFIX + name} holds NaN or infinite numbers; no editor can use it")
        return weights


def open_lora(folder: Path, example: str) -> LoraFile:
    """Read names, shapes and metadata of the LoRA in a folder, and no weights.

    Args:
        folder: holding the file under the name that diffusers gives it; or a name on the Hub, see
            `rc_grpo.editor.weights.lora_hub`.
        example: a name that would fit, to be shown beside one that does not.

    Raises:
        ValueError: there is no such file, it is not whole, or diffusers would do something else with it than add the
            scaled products of pairs of matrices to the transformer's projections.
    """
    path = _find(local_folder(folder, WEIGHTS_NAME))
    with _opened(path) as file:
        tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
        kinds = {name: str(tensor.get_dtype()) for name, tensor in tensors.items()}
        alphas = {
            match["module"]: file.get_tensor(name)
            for name in shapes
            if (match := _KNOWN.fullmatch(name)) and not match["matrix"]
        }
        metadata = _metadata(path, (file.metadata() or {}).get(_METADATA))
    matrices = _matrices(path, shapes, example)
    for name in matrices:
        if not kinds[PREFIX + name].startswith(("F", "BF")):
            raise ValueError(f"{path}: {PREFIX + name} is of {kinds[PREFIX + name]}, and weights are floating point")
    modules = list(dict.fromkeys(name.rsplit(".lora_", 1)[0] for name in matrices))
    ranks = {module: _rank(path, matrices, module) for module in modules}
    told = _alphas_told(path, alphas, ranks)
    if metadata is None:
        if told.keys() != ranks.keys():
            raise ValueError(
                f"{path} does not say its rank and alpha; save it with transformer_lora_adapter_metadata, as "
                "a pipeline's save_lora_weights takes it"
            )
        return LoraFile(path, matrices, {module: told[module] / rank for module, rank in ranks.items()})
    return LoraFile(path, matrices, dict(_scales(path, metadata, ranks, told)))


def _find(folder: Path) -> Path:
    path, where = folder / WEIGHTS_NAME, "a run leaves one in runs/NAME/lora"
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name the folder that holds it, under the name {WEIGHTS_NAME}; {where}")
    if path.is_file():
        rivals = [other.name for other in folder.glob(f"*{WEIGHTS_NAME}") if other != path]
        if rivals:
            raise ValueError(f"{folder} holds {WEIGHTS_NAME} and {rivals[0]}, of which diffusers takes any; remove one")
        return path
    there = sorted(other.name for other in folder.glob("*")) if folder.is_dir() else []
    pickled = [name for name in there if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if "adapter_model.safetensors" in there:
        where = f"adapter_model.safetensors is in PEFT's form: {_CONVERT}"
    elif tensors := [name for name in there if name.endswith(".safetensors")]:
        where = f"if it is {' or '.join(tensors)}, give it that name"
    elif pickled:
        where = f"{pickled[0]} is a pickle, which runs code when it is read: {_CONVERT}"
    raise ValueError(f"no LoRA at {path}; {where}")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error


def _metadata(path: Path, text: str | None) -> dict[str, Any] | None:
    """Return PEFT's configuration of the transformer's LoRA as the file tells it, or None if it tells none."""
    if text is None:
        return None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its {_METADATA} is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path}: its {_METADATA} is no JSON object but {text[:40]!r}")
    return {name.removeprefix(PREFIX): value for name, value in told.items() if name.startswith(PREFIX)}


def _matrices(path: Path, shapes: Mapping[str, tuple[int, ...]], example: str) -> dict[str, tuple[int, ...]]:
    if not shapes:
        raise ValueError(f"{path} holds no tensor; a name such as {example!r} is expected")
    for name in shapes:
        if not _KNOWN.fullmatch(name):
            raise ValueError(foreign(path, name, example))
    for name in shapes:
        module = name.rsplit(".lora_", 1)[0].removesuffix(".alpha")
        for partner in (f"{module}.lora_A.weight", f"{module}.lora_B.weight"):
            if partner not in shapes:
                raise ValueError(f"{path} holds {name!r} without {partner!r}; it is not whole")
    return {name.removeprefix(PREFIX): shape for name, shape in shapes.items() if not name.endswith(".alpha")}


def foreign(path: Path, name: str, example: str) -> str:
    """Return the line that refuses a file for a name in it, beside an example of one that would fit."""
    bare = name.removeprefix(PREFIX)
    what, way = next((what, way) for pattern, what, way in _FOREIGN if re.search(pattern, bare))
    if re.fullmatch(r".+\.lora_[AB]\.weight", name) and not name.startswith((PREFIX, "base_model.", "text_encoder")):
        what, way = f"a name without the prefix {PREFIX!r}", _CONVERT
    return f"{path} holds {name!r}, {what}, where a name such as {example!r} is expected; {way}"


def _rank(path: Path, shapes: Mapping[str, tuple[int, ...]], module: str) -> int:
    a, b = (shapes[f"{module}.lora_{matrix}.weight"] for matrix in "AB")
    if not len(a) == len(b) == 2 or a[0] != b[1] or 0 in (*a, *b):
        raise ValueError(
            f"{path}: the matrices of {PREFIX}{module} have shapes {list(a)} and {list(b)}, which are no "
            "[rank, in] and [out, rank]"
        )
    return a[0]


def _alphas_told(path: Path, alphas: Mapping[str, Tensor], ranks: Mapping[str, int]) -> dict[str, float]:
    for module, tensor in alphas.items():
        if tensor.numel() != 1 or not bool(torch.isfinite(tensor.float()).all()):
            raise ValueError(f"{path}: {PREFIX}{module}.alpha is no finite number but {tensor.flatten()[:4].tolist()}")
    return {module: float(tensor) for module, tensor in alphas.items() if module in ranks}


def _scales(
    path: Path, config: Mapping[str, Any], ranks: Mapping[str, int], told: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    _refuse_unhonoured(path, config)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if rank is None or alpha is None:
        raise ValueError(
            f"{path} does not say its rank and alpha: its {_METADATA} has no {'r' if rank is None else 'lora_alpha'}; "
            "save it with transformer_lora_adapter_metadata, as a pipeline's save_lora_weights takes it"
        )
    by_rank, by_alpha = (config.get(name) or {} for name in ("rank_pattern", "alpha_pattern"))
    for module, found in ranks.items():
        said = _number(path, "rank", _matching(path, by_rank, module, rank))
        if said != found:
            raise ValueError(f"{path} says that {PREFIX}{module} has rank {said:g}, and its matrices have {found}")
        strength = _number(path, "alpha", _matching(path, by_alpha, module, alpha))
        if told.get(module, strength) != strength:
            raise ValueError(
                f"{path} says two things: {PREFIX}{module}.alpha is {told[module]:g}, and its {_METADATA} makes it "
                f"{strength:g}; leave one out"
            )
        yield module, strength / (math.sqrt(found) if config.get("use_rslora") else found)


def _refuse_unhonoured(path: Path, config: Mapping[str, Any]) -> None:
    neutral = LoraConfig().to_dict()
    for name, value in config.items():
        if name in _HONOURED | _IDLE or value == neutral.get(name) or value in (None, False, [], {}, ""):
            continue
        if name == "init_lora_weights" and value in _INITIAL:
            continue
        raise ValueError(
            f"{path} was made with {name} = {value!r}, which would be applied by diffusers and is not here; train it "
            f"without {name}, or merge what it does into the base model"
        )


def _matching(path: Path, pattern: Any, module: str, otherwise: Any) -> Any:
    """Return a module's entry in a pattern of PEFT's, found as PEFT finds it."""
    try:
        return pattern.get(get_pattern_key(list(pattern), module), otherwise)
    except (AttributeError, re.error) as error:
        raise ValueError(f"{path}: {pattern!r} is no pattern of modules: {error}") from error


def _number(path: Path, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: its {what} is {value!r}, which is no finite number")
    return value
