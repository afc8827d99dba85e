"""LoRA files: mutated headers and bytes; only a ValueError, before a model is loaded, or float32 tensors by name."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st

from deploy.configs import load_config
from rc_grpo.editor import lora
from rc_grpo.editor.export import WEIGHTS_NAME, check_lora, read_lora, save_lora
from rc_grpo.editor.loading import load_editor
from tests.fuzz.mutations import Draw, mutated_bytes, mutated_headers
from tests.fuzz.target import Target, ask

CONFIG = load_config("pocket", ["editor.lora.rank=1", "editor.lora.alpha=2"])


@cache
def exported() -> bytes:
    """Return the file that the pocket editor exports."""
    editor = load_editor(CONFIG.editor, CONFIG.seed)
    with tempfile.TemporaryDirectory() as folder:
        return save_lora(editor, lora.state(editor.transformer), Path(folder)).read_bytes()


class _File(bytes):
    """A file whose weights do not fill the screen."""

    def __repr__(self) -> str:
        return f"{bytes(self[:2000])!r}... ({len(self)} bytes)"


@st.composite
def _files(draw: Draw) -> bytes:
    data = exported()
    return _File(draw(st.one_of(mutated_headers(data), mutated_headers(data), mutated_bytes([data]))))


_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-lora-")


def check(data: bytes) -> None:
    folder = Path(_FOLDER.name)
    (folder / WEIGHTS_NAME).write_bytes(data)
    weights = ask(lambda: read_lora(CONFIG.editor.lora, folder), ValueError)
    ask(lambda: check_lora(CONFIG.editor, folder), ValueError)
    if isinstance(weights, dict):
        assert all(isinstance(name, str) and name.encode() for name in weights)
        assert all(tensor.dtype == torch.float32 for tensor in weights.values())


TARGET = Target("lora_files", _files(), check)
