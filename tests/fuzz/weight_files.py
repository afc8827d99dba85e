"""Weights of a model with a mutated header, index or byte: refused in words, or a model with no weight of its own."""

import json
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.utils import logging

from rc_grpo.editor.weights.components import check_folder
from rc_grpo.editor.weights.on_disk import WEIGHTS_INDEX, ModelFilesError
from rc_grpo.editor.weights.pretrained import load_model
from tests.fuzz.mutations import Draw, json_texts, mutated_bytes, mutated_headers
from tests.fuzz.target import Refused, Target, ask

_ROOT = tempfile.TemporaryDirectory(prefix="fuzz-weights-")
_PIPELINE = {"text_encoder": ["transformers", "CLIPTextModel"]}
_COMPONENT = Path(_ROOT.name) / "model" / "text_encoder"


@cache
def valid() -> dict[str, bytes]:
    """Return the files of a model in two shards by name."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    model = CLIPTextModel(CLIPTextConfig(vocab_size=16, max_position_embeddings=4, **sizes))
    model.save_pretrained(_COMPONENT, max_shard_size=1200)
    return {path.name: path.read_bytes() for path in sorted(_COMPONENT.iterdir())}


@st.composite
def _changed(draw: Draw) -> tuple[str, bytes]:
    """One file in the place of the valid one of its name."""
    files = valid()
    name = draw(st.sampled_from([name for name in files if name != "config.json"]))
    data = files[name]
    if name == WEIGHTS_INDEX:
        text = draw(json_texts(json.loads(data)))
        return name, draw(st.one_of(st.just(text.encode(errors="surrogatepass")), mutated_bytes([data])))
    return name, draw(st.one_of(mutated_headers(data), mutated_headers(data), mutated_bytes([data])))


def check(drawn: tuple[str, bytes]) -> None:
    for name, data in (valid() | dict([drawn])).items():
        (_COMPONENT / name).write_bytes(data)
    looked = ask(lambda: check_folder(_COMPONENT.parent, _PIPELINE), ModelFilesError, naming="text_encoder")
    if isinstance(looked, Refused):
        return
    model: Any = ask(lambda: _quietly(str(_COMPONENT.parent)), ModelFilesError, OSError)
    if not isinstance(model, Refused):
        # What no file holds is on no device, or drawn at random, which is what must not be.
        assert not any(tensor.is_meta for tensor in model.state_dict().values())


def _quietly(place: str) -> Any:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(CLIPTextModel, place, subfolder="text_encoder", dtype=torch.float32)


TARGET = Target("weight_files", _changed(), check)
