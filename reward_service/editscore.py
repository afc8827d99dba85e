"""The EditScore judge: a vision-language model asked twice a pass about every candidate (arXiv 2509.23909).

What the published scorer does and this one does not: show both images for PQ, score an unparsable answer as 5 of 10 or
at random, pass an out-of-range score, read digits out of a cut-off text, ask again with the same seed.
"""

import asyncio
import base64
import logging
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
from rc_grpo.storable import storable
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

logger = logging.getLogger(__name__)

RAW_CHARACTERS = 8000
"""Of a text of the judge that is shown as it came."""

_OPENING_TOKENS, _OPENING_SIDE = 8, 128
_OPENING_INSTRUCTION = "Paint the upper left quarter white."
_PROTOCOL = "Do the judge's urls name a server of the OpenAI chat protocol?"
_WAY_OUT = (
    "That was a question with two small images, to be answered by a JSON schema, as all are that the judge will be "
    "asked. An attached vLLM server takes two images when it is started with --limit-mm-per-prompt '{\"image\": 2}'; "
    "for one started here, see server.arguments"
)


class UnansweredError(ValueError):
    """A question brought too few answers; the message is the last reason."""


@dataclass(frozen=True)
class Answers:
    """What a question brought: one answer a pass, and how often it was asked."""

    passes: tuple[Answer, ...]
    attempts: int


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
        """Wait until the server serves; check key and model, and that it takes a question with two images.

        Raises:
            JudgeSetupError: the key is refused, the server has no such model, refuses the question, or is none of the
                protocol.
        """
        await self._endpoint.open()
        try:
            await self._connected().require_model()
        except ForeignServerError as error:
            raise JudgeSetupError(f"{error}. {_PROTOCOL}") from error
        except JudgeUnavailableError as error:
            raise JudgeSetupError(f"{error}. The server cannot say which models it has") from error
        await self._ask_something()

    async def sample(self, instruction: str, source: Pixels, edited: Pixels) -> Sample:
        """Ask the question with two images once, about images ``[H, W, 3]`` of one size.

        Raises:
            JudgeUnavailableError, RequestRefusedError, JudgeSetupError: as `ChatClient.complete`.
        """
        return await self._sample(instruction, source, edited, self._config.sampling)

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

    async def _ask_something(self) -> None:
        """Ask the first question, a small one; what it is answered does not matter, that it is answered does."""
        short = self._config.sampling.model_copy(update={"max_tokens": _OPENING_TOKENS})
        try:
            await self._sample(_OPENING_INSTRUCTION, *_opening_images(), short)
        except RequestRefusedError as error:
            raise JudgeSetupError(f"{error}. {_WAY_OUT}") from error
        except ForeignServerError as error:
            raise JudgeSetupError(f"{error}. {_PROTOCOL}") from error
        except JudgeUnavailableError as error:
            # It may be busy with others' groups; if it stays so, the first group tells.
            logger.warning("%s: the opening question is left unanswered: %s", self.name, error)

    async def _sample(self, instruction: str, source: Pixels, edited: Pixels, sampling: SamplingConfig) -> Sample:
        images = [await asyncio.to_thread(self._url, image) for image in (source, edited)]
        messages = chat(self._prompts.question("sc"), images, instruction, self._family)
        completions = await self._connected().complete(messages, sampling, ANSWER_SCHEMA, count=1, seed=sampling.seed)
        return _sampled(completions[0], sampling)

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


def _sampled(completion: Completion, sampling: SamplingConfig) -> Sample:
    raw = storable(completion.text, RAW_CHARACTERS)
    try:
        return Sample(raw, _parsed(completion, sampling))
    except AnswerError as error:
        return Sample(raw, fault=str(error))


def _opening_images() -> tuple[Pixels, Pixels]:
    ramp = np.linspace(0, 255, _OPENING_SIDE, dtype=np.uint8)
    source = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(128)), axis=-1)
    edited = source.copy()
    edited[: _OPENING_SIDE // 2, : _OPENING_SIDE // 2] = 255
    return source, edited


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
