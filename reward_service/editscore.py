"""The EditScore judge: a vision-language model asked twice a pass about every candidate (arXiv 2509.23909).

What the published scorer does and this one does not: show both images for PQ, score an unparsable answer as 5 of 10 or
at random, pass an out-of-range score, read digits out of a cut-off text, ask again with the same seed.
"""

import asyncio
import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rc_grpo.config import EditScoreConfig, SamplingConfig
from rc_grpo.editor.geometry import resize_image
from rc_grpo.images import Pixels, decode_rgb, encode_png
from rc_grpo.messages import EditTask
from reward_service.client import ChatClient, ForeignServerError, RequestRefusedError
from reward_service.contract import (
    ANSWER_SCHEMA,
    QUESTIONS,
    SUBSCORES,
    Answer,
    AnswerError,
    Question,
    overall,
    parse_answer,
)
from reward_service.endpoint import Endpoint
from reward_service.judge import JudgeSetupError, JudgeUnavailableError, Verdict
from reward_service.openai_answers import Completion
from reward_service.prompts import Family, Prompts, chat


class UnansweredError(ValueError):
    """A question brought too few answers; the message is the last reason."""


@dataclass(frozen=True)
class Answers:
    """What a question brought: one answer a pass, and how often it was asked."""

    passes: tuple[Answer, ...]
    attempts: int


class EditScoreJudge:
    """Scores a group through one server.

    Args:
        config: model, sampling, patience.
        endpoint: where the model is served.
        prompts: the two questions.
        family: how images are introduced.
    """

    def __init__(self, config: EditScoreConfig, endpoint: Endpoint, prompts: Prompts, family: Family) -> None:
        self.name = f"editscore:{config.model}"
        self._config = config
        self._endpoint = endpoint
        self._prompts = prompts
        self._family: Family = family
        self._client: ChatClient | None = None

    async def open(self) -> None:
        """Wait until the server serves; check key and model.

        Raises:
            JudgeSetupError: the key is refused, the server has no such model, or is none of the protocol.
        """
        await self._endpoint.open()
        try:
            await self._connected().require_model()
        except ForeignServerError as error:
            raise JudgeSetupError(f"{error}; do the judge's urls name a server of the OpenAI chat protocol?") from error
        except JudgeUnavailableError as error:
            raise JudgeSetupError(f"{error}; the server cannot say which models it has") from error

    async def ready(self) -> None:
        """Return when the server serves again."""
        await self._endpoint.ready()

    async def metrics(self) -> str:
        """Return the server's Prometheus metrics as text."""
        return await self._endpoint.metrics()

    async def close(self) -> None:
        """Let go of the server."""
        if self._client is not None:
            await self._client.close()
        await self._endpoint.close()

    async def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; the source is resized to them as for editing, and encoded once.

        Raises:
            JudgeUnavailableError: another server may do better.
            JudgeSetupError: none will.
        """
        height, width = images.shape[1:3]
        source = await asyncio.to_thread(self._url, resize_image(decode_rgb(task.source), height, width))
        asked = [asyncio.ensure_future(self._judge(task.instruction, source, image)) for image in images]
        try:
            return await asyncio.gather(*asked)
        finally:
            for question in asked:
                question.cancel()

    async def _judge(self, instruction: str, source: str, image: Pixels) -> Verdict:
        edited = await asyncio.to_thread(self._url, image)
        shown: dict[Question, list[str]] = {"sc": [source, edited], "pq": [edited]}
        try:
            sc, pq = await asyncio.gather(*(self._ask(name, shown[name], instruction) for name in QUESTIONS))
        except (UnansweredError, RequestRefusedError) as error:
            return Verdict.failure(str(error), attempts=self._config.sampling.attempts)
        return verdict({"sc": sc, "pq": pq})

    async def _ask(self, question: Question, images: Sequence[str], instruction: str) -> Answers:
        sampling, client = self._config.sampling, self._connected()
        messages = chat(self._prompts.question(question), images, instruction, self._family)
        answers: list[Answer] = []
        reason = "too few texts"
        for attempt in range(sampling.attempts):
            completions = await client.complete(
                messages,
                sampling,
                ANSWER_SCHEMA,
                count=sampling.passes - len(answers),
                seed=sampling.seed + sampling.passes * attempt,
            )
            for completion in completions:
                try:
                    answers.append(_parsed(completion, sampling))
                except AnswerError as error:
                    reason = str(error)
            if len(answers) >= sampling.passes:
                return Answers(tuple(answers[: sampling.passes]), attempt + 1)
        raise UnansweredError(f"{question}: no answer in {sampling.attempts} attempts, the last was {reason}")

    def _connected(self) -> ChatClient:
        # A restarted server is at another address.
        if self._client is None or self._client.url != self._endpoint.url:
            self._client = ChatClient(
                self._endpoint.url, self._endpoint.api_key, self._config.model, self._config.client
            )
        return self._client

    def _url(self, image: Pixels) -> str:
        png = encode_png(bounded(image, self._config.image_side))
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def verdict(answers: Mapping[Question, Answers]) -> Verdict:
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


def _parsed(completion: Completion, sampling: SamplingConfig) -> Answer:
    if not completion.finished:
        why = completion.remark or f"cut off at max_tokens = {sampling.max_tokens}"
        raise AnswerError(f"{why}: ...{completion.text[-80:]!r}")
    return parse_answer(completion.text)


def bounded(image: Pixels, side: int) -> Pixels:
    """Shrink an image ``[H, W, 3]`` whose area exceeds ``side * side`` pixels to that area, its shape kept."""
    height, width = image.shape[:2]
    scale = side / math.sqrt(height * width)
    if scale >= 1.0:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
