"""The EditScore contract without its texts: each of the four marks is the expectation over one token's chances."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rc_grpo.config import EditScoreConfig, SamplingConfig
from rc_grpo.messages import EditTask
from rc_grpo.storable import one_line
from reward_service.asking.client import RequestRefusedError
from reward_service.contract import QUESTIONS, SUBSCORES, AnswerError, Question, overall
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.logits.questions import DigitQuestions
from reward_service.logits.reading import DIGIT_SCHEMA, expected_mark
from reward_service.prompts import Family
from reward_service.serving.endpoint import Endpoint
from reward_service.vision_judge import OPENING_INSTRUCTION, VisionJudge, together

_NUMBER = re.compile(r"\s*\d{2}")
_QUOTED_CHARACTERS = 60


class LogitsJudge(VisionJudge):
    """Scores a group through one server, by four requests of one token about every candidate.

    Nothing is sampled, so that an answer that is none is not asked for again.

    Args:
        config: model, patience, how chances are read.
        endpoint: where the model is served.
        questions: the four.
        family: how images are introduced.
    """

    def __init__(self, config: EditScoreConfig, endpoint: Endpoint, questions: DigitQuestions, family: Family) -> None:
        super().__init__(config, endpoint, images=2)
        self._questions = questions
        self._family: Family = family
        self._logits = config.logits
        self._schema = DIGIT_SCHEMA if config.logits.held else None

    async def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; the source is resized to them as for editing, and encoded once.

        Raises:
            JudgeUnavailableError: another server may do better.
            JudgeSetupError: none will.
        """
        return await self._each_alone(task, images, self._judge)

    async def _opening(self, images: Sequence[str], sampling: SamplingConfig) -> None:
        mark, *_ = SUBSCORES["sc"]
        messages = self._questions.chat("sc", mark, images, OPENING_INSTRUCTION, self._family)
        await self._connected().first_token(messages, self._schema)
        if self._schema is not None:
            return
        likeliest = sampling.model_copy(update={"temperature": 0.0})
        said, *_ = await self._connected().complete(messages, likeliest, None, count=1, seed=sampling.seed)
        if _NUMBER.match(said.text):
            raise JudgeSetupError(
                f"judge {self._config.model!r} is asked for one digit and says "
                f"{one_line(repr(said.text), _QUOTED_CHARACTERS)}: its first figure alone is no mark. Set "
                "scoring: text, or word logits.prompts so that it keeps to the scale"
            )

    @property
    def _way_out(self) -> str:
        return (
            f"{super()._way_out}. With scoring: logits it is also asked for the 20 likeliest first tokens "
            "(top_logprobs), which a vLLM server gives unless --max-logprobs is lower"
        )

    async def _judge(self, instruction: str, source: str, edited: str) -> Verdict:
        shown: dict[Question, list[str]] = {"sc": [source, edited], "pq": [edited]}
        asked = [(question, mark) for question in QUESTIONS for mark in SUBSCORES[question]]
        try:
            marks = await together(self._mark(question, mark, shown[question], instruction) for question, mark in asked)
        except (AnswerError, RequestRefusedError) as error:
            return Verdict.failure(str(error))
        found = {mark: value for (_, mark), value in zip(asked, marks, strict=True)}
        sc, pq = ([found[mark] for mark in SUBSCORES[question]] for question in QUESTIONS)
        said = ", ".join(f"{mark} {value:.1f}" for mark, value in found.items())
        return Verdict(overall(sc, pq) / 10, found, f"expected of 25: {said}")

    async def _mark(self, question: Question, mark: str, images: Sequence[str], instruction: str) -> float:
        messages = self._questions.chat(question, mark, images, instruction, self._family)
        chances = await self._connected().first_token(messages, self._schema)
        try:
            return expected_mark(chances, 0.0 if self._logits.held else self._logits.least_mass)
        except AnswerError as error:
            raise AnswerError(f"{mark}: {error}") from error
