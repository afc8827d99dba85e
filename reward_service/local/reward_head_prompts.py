"""The questions of a regression head, read from a YAML file."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rc_grpo.config import RewardHeadConfig
from rc_grpo.config.reading import ConfigError, read_mapping
from reward_service.prompts import PromptError

DEFAULT = Path(__file__).with_name("reward_head.yaml")
"""Our own words, two questions: following the instruction, and looks."""


class HeadPrompts(BaseModel):
    """One question for each head, or several that one head answers.

    Attributes:
        questions: follow source and edit; ``{instruction}`` stands for the edit instruction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    questions: tuple[str, ...] = Field(min_length=1)

    @classmethod
    def of(cls, config: RewardHeadConfig) -> "HeadPrompts":
        """Read the questions that the configuration names, or ours.

        Raises:
            PromptError: they cannot be used.
        """
        return cls.load(config.prompts or DEFAULT, config.reward_token)

    @classmethod
    def load(cls, path: Path, reward_token: str) -> "HeadPrompts":
        """Read a file.

        Raises:
            PromptError: it is missing, not of this form, or a question does not hold the instruction and, once, the
                token that the heads read at.
        """
        try:
            prompts = cls.model_validate(read_mapping(path))
        except (ConfigError, ValidationError) as error:
            raise PromptError(f"prompt file {path}: {error}") from error
        for number, question in enumerate(prompts.questions, start=1):
            if "{instruction}" not in question:
                raise PromptError(f"prompt file {path}: question {number} does not hold {{instruction}}")
            if (count := question.count(reward_token)) != 1:
                raise PromptError(
                    f"prompt file {path}: question {number} holds {reward_token!r} {count} times; the heads read at one"
                )
        return prompts

    def filled(self, instruction: str, reward_token: str) -> list[str]:
        """Return the questions about an instruction; what it holds of the reward token itself is broken up."""
        broken = instruction.replace(reward_token, " ".join(reward_token))
        return [question.replace("{instruction}", broken) for question in self.questions]
