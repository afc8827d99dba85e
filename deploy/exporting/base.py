"""The model that a LoRA is for, as its card names it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

from rc_grpo.config import EditorConfig
from rc_grpo.editor.files import FULL_SIZE, model_source, reach_the_hub
from rc_grpo.pocket import MODEL_PATHS

CARD = "README.md"


@dataclass(frozen=True)
class Base:
    """A base model.

    Attributes:
        name: to say; of a folder its last part, as paths are private.
        hub_id: where it is one.
        revision: that the run names.
        licence: keys of a card that begin with ``license``; none where it is not known here.
    """

    name: str
    hub_id: str | None
    revision: str | None
    licence: dict[str, str]

    @property
    def licence_in_words(self) -> str:
        """The licence's name."""
        return self.licence.get("license_name") or self.licence.get("license") or "not known here"


def base_of(editor: EditorConfig) -> Base:
    """Return the base model of an editor; its licence is read from its card, in its folder or on the Hub."""
    if editor.model in MODEL_PATHS:
        return Base(f"{editor.model} (comes with rc-grpo)", None, None, {"license": "apache-2.0"})
    if editor.model.startswith(FULL_SIZE):
        return Base(f"{editor.model} (random weights)", None, None, {})
    folder = Path(model_source(editor))
    if folder.is_dir():
        return Base(folder.resolve().name, None, None, _licence(folder / CARD))
    try:
        reach_the_hub(editor.model, editor.revision)
        card = Path(hf_hub_download(editor.model, CARD, revision=editor.revision))
    except (OSError, EntryNotFoundError, HTTPError, HFValidationError):
        return Base(editor.model, editor.model, editor.revision, {})
    return Base(editor.model, editor.model, editor.revision, _licence(card))


def _licence(card: Path) -> dict[str, str]:
    try:
        told: dict[str, Any] = metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {name: value for name, value in told.items() if name.startswith("license") and isinstance(value, str)}
