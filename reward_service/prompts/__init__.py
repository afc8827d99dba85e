"""What the judge is told, read from a YAML file, and how it is laid out as a chat for each family of models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rc_grpo.config.reading import ConfigError, read_mapping
from reward_service.contract import Question

DEFAULT_PROMPTS = Path(__file__).with_name("editscore.yaml")
"""Our own words around EditScore's contract."""

Family = Literal["qwen2_5_vl", "qwen3_vl"]
"""How images are introduced: `qwen2_5_vl` judges were trained with "<img1>: " before each, `qwen3_vl` with nothing."""


class PromptError(ValueError):
    """The prompt file cannot be used; the message names it and says why."""


class Prompt(BaseModel):
    """One question in words.

    Attributes:
        system: system message; without one the model's own default holds.
        text: follows the images; ``{instruction}`` stands for the edit instruction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: str | None = None
    text: str

    def filled(self, instruction: str) -> str:
        """Return the text with the instruction in its place; other braces stay, so that JSON can be shown."""
        return self.text.replace("{instruction}", instruction)


class QuestionFile(BaseModel):
    """What a judge is asked, as a YAML file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            PromptError: it is missing, not YAML, or not of this form.
        """
        try:
            return cls.model_validate(read_mapping(path))
        except (ConfigError, ValidationError) as error:
            raise PromptError(f"prompt file {path}: {error}") from error


class Prompts(QuestionFile):
    """The two questions."""

    sc: Prompt
    pq: Prompt

    @model_validator(mode="after")
    def _instruction_is_asked_about(self) -> Self:
        if "{instruction}" not in self.sc.text:
            raise ValueError("sc.text must hold {instruction}, or the judge does not know what was asked for")
        return self

    def question(self, question: Question) -> Prompt:
        """Return one of the two."""
        return self.sc if question == "sc" else self.pq


def messages(system: str | None, content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a chat of one question in parts, behind a system message if there is one."""
    first = [{"role": "system", "content": system}] if system is not None else []
    return [*first, {"role": "user", "content": content}]


def chat(
    prompt: Prompt, images: Sequence[str], instruction: str, family: Family, *, words_first: bool = False
) -> list[dict[str, Any]]:
    """Lay a question out as OpenAI chat messages.

    Args:
        prompt: the question.
        images: as URLs (``data:image/png;base64,...``), the source first.
        instruction: what the editor was asked to do.
        family: how the images are introduced.
        words_first: what all edits of a source share comes before what they do not, the text before the images.
    """
    words = [text_part(prompt.filled(instruction))]
    shown = image_parts(images, family)
    content = [*words, *shown] if words_first else [*shown, *words]
    return messages(prompt.system, content)


def text_part(text: str) -> dict[str, Any]:
    """Return a text as a part of a message."""
    return {"type": "text", "text": text}


def image_parts(images: Sequence[str], family: Family) -> list[dict[str, Any]]:
    """Return images, as URLs, as parts of a message, introduced as the family knows it."""
    parts: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        if family == "qwen2_5_vl":
            parts.append(text_part(f"<img{number}>: "))
        parts.append({"type": "image_url", "image_url": {"url": image}})
    return parts
