"""The EditScore judge: a vision-language model asked twice a pass about every candidate (arXiv 2509.23909).

What the published scorer does and this one does not: show both images for PQ, score an unparsable answer as 5 of 10 or
at random, pass an out-of-range score, read digits out of a cut-off text, ask again with the same seed.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rc_grpo.config import EditScoreConfig, SamplingConfig
from rc_grpo.images import Pixels
from rc_grpo.messages import EditTask
from rc_grpo.storable import storable
from reward_service.asking.client import RequestRefusedError
from reward_service.asking.openai_answers import Completion
from reward_service.contract import (
    QUESTIONS,
    SUBSCORES,
    Answer,
    AnswerError,
    Question,
    answer_schema,
    overall,
    parse_answer,
)
from reward_service.judge import Verdict
from reward_service.prompts import Family, Prompts, chat
from reward_service.serving.endpoint import Endpoint
from reward_service.vision_judge import (
    OPENING_INSTRUCTION,
    Answers,
    UnansweredError,
    VisionJudge,
    whole,
)

RAW_CHARACTERS = 8000
"""Of a text of the judge that is shown as it came."""


@dataclass(frozen=True)
class Sample:
    """What a judge said to one question with two images, the first of its two.

    Attributes:
        raw: its text as it came, but `storable` and with at most `RAW_CHARACTERS`.
        answer: the text as an answer, its score success and absence of over-editing; None where it is none.
        fault: why it is none.
    """

    raw: str
    answer: Answer | None = None
    fault: str | None = None


class EditScoreJudge(VisionJudge):
    """Scores a group through one server.

    Args:
        config: model, sampling, patience.
        endpoint: where the model is served.
        prompts: the two questions.
        family: how images are introduced.
    """

    def __init__(self, config: EditScoreConfig, endpoint: Endpoint, prompts: Prompts, family: Family) -> None:
        super().__init__(config, endpoint, images=2)
        self._prompts = prompts
        self._family: Family = family
        self._words_first = config.order == "words_first"
        self._schema = answer_schema(config.reasoning_characters)

    async def sample(self, instruction: str, source: Pixels, edited: Pixels) -> Sample:
        """Ask the question with two images once, about images ``[H, W, 3]`` of one size.

        Raises:
            JudgeUnavailableError, RequestRefusedError, JudgeSetupError: as `ChatClient.complete`.
        """
        async with self._showing() as show:
            return await self._sample(instruction, [await show(source), await show(edited)], self._config.sampling)

    async def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; the source is resized to them as for editing, and encoded once.

        Raises:
            JudgeUnavailableError: another server may do better.
            JudgeSetupError: none will.
        """
        return await self._each_alone(task, images, self._judge)

    async def _opening(self, images: Sequence[str], sampling: SamplingConfig) -> None:
        await self._sample(OPENING_INSTRUCTION, images, sampling)

    async def _sample(self, instruction: str, images: Sequence[str], sampling: SamplingConfig) -> Sample:
        messages = self._chat("sc", images, instruction)
        completions = await self._connected().complete(messages, sampling, self._schema, count=1, seed=sampling.seed)
        return _sampled(completions[0], sampling)

    async def _judge(self, instruction: str, source: str, edited: str) -> Verdict:
        shown: dict[Question, list[str]] = {"sc": [source, edited], "pq": [edited]}
        try:
            sc, pq = await asyncio.gather(*(self._answers(name, shown[name], instruction) for name in QUESTIONS))
        except (UnansweredError, RequestRefusedError) as error:
            return Verdict.failure(str(error), attempts=self._config.sampling.attempts)
        return verdict({"sc": sc, "pq": pq})

    async def _answers(self, question: Question, images: Sequence[str], instruction: str) -> Answers[Answer]:
        messages = self._chat(question, images, instruction)
        return await self._ask(question, messages, self._schema, parse_answer)

    def _chat(self, question: Question, images: Sequence[str], instruction: str) -> list[dict[str, Any]]:
        asked = self._prompts.question(question)
        return chat(asked, images, instruction, self._family, words_first=self._words_first)


def verdict(answers: Mapping[Question, Answers[Answer]]) -> Verdict:
    """Aggregate the passes: EditScore's overall score of each, then their mean, 0..1."""
    passes = list(zip(answers["sc"].passes, answers["pq"].passes, strict=True))
    reward = math.fsum(overall(sc.score, pq.score) for sc, pq in passes) / len(passes) / 10
    subscores = {
        name: math.fsum(answer.score[place] for answer in answers[question].passes) / len(passes)
        for question in QUESTIONS
        for place, name in enumerate(SUBSCORES[question])
    }
    said = " | ".join(f"{question}: {answers[question].passes[0].reasoning}" for question in QUESTIONS)
    return Verdict(reward, subscores, said, attempts=max(answer.attempts for answer in answers.values()))


def _sampled(completion: Completion, sampling: SamplingConfig) -> Sample:
    raw = storable(completion.text, RAW_CHARACTERS)
    try:
        return Sample(raw, parse_answer(whole(completion, sampling)))
    except AnswerError as error:
        return Sample(raw, fault=str(error))
