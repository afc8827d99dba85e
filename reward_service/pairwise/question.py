"""The question of a pairwise judge, read from a YAML file of the form in which PVC-Judge's are published."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reward_service.prompts import QuestionFile, messages

DEFAULT = Path(__file__).with_name("question.yaml")
"""Our own words around PVC-Judge's contract."""

_INSTRUCTION = re.compile(r"\{\{\s*instruction\s*\}\}")
_SHOWN = ("source", "first edit", "second edit")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Source(_Part):
    source: Literal["input_image"]

    @property
    def place(self) -> int:
        return 0


class _Edit(_Part):
    source: Literal["edited_images"]
    index: Literal[0, 1]

    @property
    def place(self) -> int:
        return 1 + self.index


class _Text(_Part):
    text: str


class _Image(_Part):
    image: Annotated[_Source | _Edit, Field(discriminator="source")]


class PairQuestion(QuestionFile):
    """The question, text and images as they follow one another.

    Attributes:
        system_prompt: system message; without one the model's own default holds.
        user_prompt: ``text`` parts, of which one holds ``{{ instruction }}``, and ``image`` parts: the source
            (``{source: input_image}``) and both edits (``{source: edited_images, index: 0}`` and ``1``), once each.
        prompt_id, version, metadata: of the published files; not looked at.
    """

    system_prompt: str | None = None
    user_prompt: tuple[_Text | _Image, ...]
    prompt_id: str | None = None
    version: str | None = None
    metadata: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _all_is_shown(self) -> Self:
        places = [part.image.place for part in self.user_prompt if isinstance(part, _Image)]
        for place, name in enumerate(_SHOWN):
            if (count := places.count(place)) != 1:
                raise ValueError(f"user_prompt shows the {name} {count} times and not once")
        texts = [part.text for part in self.user_prompt if isinstance(part, _Text)]
        if not any(_INSTRUCTION.search(text) for text in texts):
            raise ValueError(
                "a text of user_prompt must hold {{ instruction }}, or the judge does not know what was asked for"
            )
        return self

    def chat(self, images: Sequence[str], instruction: str) -> list[dict[str, Any]]:
        """Lay the question out as OpenAI chat messages.

        Args:
            images: source, first and second edit, as URLs.
            instruction: what the editor was asked to do.
        """
        content: list[dict[str, Any]] = []
        for part in self.user_prompt:
            if isinstance(part, _Image):
                content.append({"type": "image_url", "image_url": {"url": images[part.image.place]}})
                continue
            text = _INSTRUCTION.sub(lambda _: instruction, part.text)
            # As the published client does: what follows an image begins on a line of its own.
            after_image = bool(content) and content[-1]["type"] == "image_url"
            content.append({"type": "text", "text": f"\n{text}" if after_image else text})
        return messages(self.system_prompt or None, content)
