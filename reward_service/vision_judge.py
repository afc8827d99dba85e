"""What judges that ask a vision-language model on a server have in common: opened, asked anew until answers parse."""

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rc_grpo.config import SamplingConfig, ServedConfig
from rc_grpo.editor.geometry import resize_image
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.messages import EditTask
from reward_service.asking.client import ChatClient, ForeignServerError, RequestRefusedError
from reward_service.asking.openai_answers import Completion
from reward_service.contract import AnswerError
from reward_service.judge import JudgeSetupError, JudgeUnavailableError, Verdict
from reward_service.serving.endpoint import Endpoint

logger = logging.getLogger(__name__)
Parsed = TypeVar("Parsed")
Found = TypeVar("Found")
Shown = Callable[[Pixels], Coroutine[Any, Any, str]]
"""Returns an image's URL, ``[H, W, 3]``."""

OPENING_INSTRUCTION = "Paint the upper left quarter white."

_OPENING_TOKENS, _OPENING_SIDE = 8, 128
_PROTOCOL = "Do the judge's urls name a server of the OpenAI chat protocol?"


class UnansweredError(ValueError):
    """A question brought too few answers; the message is the last reason."""


@dataclass(frozen=True)
class Answers(Generic[Parsed]):
    """What a question brought: one answer a pass, and how often it was asked."""

    passes: tuple[Parsed, ...]
    attempts: int


class VisionJudge(ABC):
    """Asks the model of one server about images.

    Args:
        config: model, sampling, patience.
        endpoint: where the model is served.
        images: of the question with the most of them.
    """

    def __init__(self, config: ServedConfig, endpoint: Endpoint, images: int) -> None:
        self.name = f"{config.kind}:{config.model}"
        self._config = config
        self._endpoint = endpoint
        self._images = images
        self._client: ChatClient | None = None

    async def open(self) -> None:
        """Wait until the server serves; check key and model, and that it takes the question with the most images.

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

    @abstractmethod
    async def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``, as of `Judge.score`."""

    @abstractmethod
    async def _opening(self, images: Sequence[str], sampling: SamplingConfig) -> None:
        """Ask the question with the most images once, about a small one and an edit of it; no answer is expected."""

    async def _ask_something(self) -> None:
        """Ask the first question; what it is answered does not matter, that it is answered does."""
        short = self._config.sampling.model_copy(update={"max_tokens": _OPENING_TOKENS})
        try:
            async with self._showing() as show:
                await self._opening([await show(image) for image in opening_images()], short)
        except RequestRefusedError as error:
            raise JudgeSetupError(f"{error}. {self._way_out}") from error
        except ForeignServerError as error:
            raise JudgeSetupError(f"{error}. {_PROTOCOL}") from error
        except JudgeUnavailableError as error:
            # It may be busy with others' groups; if it stays so, the first group tells.
            logger.warning("%s: the opening question is left unanswered: %s", self.name, error)

    @property
    def _way_out(self) -> str:
        number = {2: "two", 3: "three"}[self._images]
        return (
            f"That was a question with {number} small images, to be answered by a JSON schema, as all are that the "
            f"judge will be asked. An attached vLLM server takes {number} images when it is started with "
            f"--limit-mm-per-prompt '{{\"image\": {self._images}}}'; for one started here, see server.arguments"
        )

    async def _ask(
        self,
        label: str,
        messages: Sequence[dict[str, Any]],
        schema: dict[str, Any],
        parse: Callable[[str], Parsed],
    ) -> Answers[Parsed]:
        """Ask until so many passes are answered; what does not parse is asked for again, anew seeded.

        Raises:
            UnansweredError: too few are after `sampling.attempts`.
            JudgeUnavailableError, RequestRefusedError, JudgeSetupError: as `ChatClient.complete`.
        """
        sampling, client = self._config.sampling, self._connected()
        answers: list[Parsed] = []
        reason = "too few texts"
        for attempt in range(sampling.attempts):
            completions = await client.complete(
                messages,
                sampling,
                schema,
                count=sampling.passes - len(answers),
                seed=sampling.seed + sampling.passes * attempt,
            )
            for completion in completions:
                try:
                    answers.append(parse(whole(completion, sampling)))
                except AnswerError as error:
                    reason = str(error)
            if len(answers) >= sampling.passes:
                return Answers(tuple(answers[: sampling.passes]), attempt + 1)
        raise UnansweredError(f"{label}: no answer in {sampling.attempts} attempts, the last was {reason}")

    def _connected(self) -> ChatClient:
        # A restarted server is at another address.
        if self._client is None or self._client.url != self._endpoint.url:
            self._client = ChatClient(
                self._endpoint.url, self._endpoint.api_key, self._config.model, self._config.client
            )
        return self._client

    async def _each_alone(
        self,
        task: EditTask,
        images: NDArray[np.uint8],
        judge: Callable[[str, str, str], Coroutine[Any, Any, Verdict]],
    ) -> Sequence[Verdict]:
        """Have every image ``[G, H, W, 3]`` judged by instruction, source and itself; each is handed over once."""
        async with self._showing() as show:
            source = await show(shown_at(images, task))

            async def one(image: Pixels) -> Verdict:
                return await judge(task.instruction, source, await show(image))

            return await together(one(image) for image in images)

    @asynccontextmanager
    async def _showing(self) -> AsyncIterator[Shown]:
        """Yield what shows images, bounded, to the server, inside the context."""
        with self._endpoint.shown() as show:
            yield lambda image: asyncio.to_thread(lambda: show(bounded(image, self._config.image_side)))


async def together(asked: Iterable[Coroutine[Any, Any, Found]]) -> list[Found]:
    """Await all at once, and ask no more where one fails."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def whole(completion: Completion, sampling: SamplingConfig) -> str:
    """Return a completion's text.

    Raises:
        AnswerError: it was cut off.
    """
    if not completion.finished:
        why = completion.remark or f"cut off at max_tokens = {sampling.max_tokens}"
        raise AnswerError(f"{why}: ...{completion.text[-80:]!r}")
    return completion.text


def bounded(image: Pixels, side: int) -> Pixels:
    """Shrink an image ``[H, W, 3]`` whose area exceeds ``side * side`` pixels to that area, its shape kept."""
    height, width = image.shape[:2]
    scale = side / math.sqrt(height * width)
    if scale >= 1.0:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def shown_at(images: NDArray[np.uint8], task: EditTask) -> Pixels:
    """Return a task's source at the size of its edits ``[G, H, W, 3]``, resized as for editing."""
    return resize_image(decode_rgb(task.source), *images.shape[1:3])


def opening_images() -> tuple[Pixels, Pixels]:
    """Return a small picture and an edit of it, each ``[128, 128, 3]``, for an opening question."""
    ramp = np.linspace(0, 255, _OPENING_SIDE, dtype=np.uint8)
    source = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(128)), axis=-1)
    edited = source.copy()
    edited[: _OPENING_SIDE // 2, : _OPENING_SIDE // 2] = 255
    return source, edited
