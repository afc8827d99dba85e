"""The questions of marks that are read from one token, read from a YAML file, and laid out so that edits share them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from reward_service.contract import QUESTIONS, SUBSCORES, Question
from reward_service.prompts import Family, QuestionFile, image_parts, messages, text_part

DEFAULT = Path(__file__).with_name("questions.yaml")
"""Our own words around EditScore's four marks."""


class Asked(BaseModel):
    """What is asked about the same images.

    Attributes:
        system: system message; without one the model's own default holds.
        text: precedes the images; ``{instruction}`` stands for the edit instruction.
        marks: follow the images, one of them a request, by the names of `SUBSCORES`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: str | None = None
    text: str
    marks: dict[str, str]


class DigitQuestions(QuestionFile):
    """The four questions, each to be answered by one digit."""

    sc: Asked
    pq: Asked

    @model_validator(mode="after")
    def _all_is_asked(self) -> Self:
        for question in QUESTIONS:
            if set(self.asked(question).marks) != set(SUBSCORES[question]):
                raise ValueError(f"{question}.marks must ask for {' and '.join(SUBSCORES[question])}")
        if "{instruction}" not in self.sc.text:
            raise ValueError("sc.text must hold {instruction}, or the judge does not know what was asked for")
        return self

    def asked(self, question: Question) -> Asked:
        """Return what is asked with the images of one of EditScore's two questions."""
        return self.sc if question == "sc" else self.pq

    def chat(
        self, question: Question, mark: str, images: Sequence[str], instruction: str, family: Family
    ) -> list[dict[str, Any]]:
        """Lay the question of one mark out as OpenAI chat messages.

        Args:
            question: which images it is about.
            mark: asked for.
            images: as URLs, the source first.
            instruction: what the editor was asked to do.
            family: how the images are introduced.
        """
        asked = self.asked(question)
        before, after = asked.text.replace("{instruction}", instruction), asked.marks[mark]
        content = [text_part(before), *image_parts(images, family), text_part(after)]
        return messages(asked.system, content)
