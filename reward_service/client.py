"""Asking a server of the OpenAI chat protocol: bounded, with deadlines, patient with what passes.

Tried again: connection errors, time-outs, 408, 429 and 5xx, with exponential backoff and jitter. Anything else says the
same thing however often it is asked.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import openai
from tenacity import AsyncRetrying, before_sleep_log, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from rc_grpo.config import ClientConfig, SamplingConfig
from reward_service.judge import JudgeSetupError, JudgeUnavailableError

logger = logging.getLogger(__name__)
_SETUP_STATUS = (401, 403, 404)


class RequestRefusedError(ValueError):
    """The server will not answer this request, today or ever: a bad image, a prompt that is too long."""


@dataclass(frozen=True)
class Completion:
    """One of the texts that a request brought.

    Attributes:
        text: as generated.
        finished: False when it was cut off at ``max_tokens``.
    """

    text: str
    finished: bool


class ChatClient:
    """Asks one server.

    Args:
        url: of the API, ``http://host:port/v1``.
        api_key: sent with every request.
        model: name under which the server has the judge.
        config: concurrency, deadlines, tries.
    """

    def __init__(self, url: str, api_key: str, model: str, config: ClientConfig) -> None:
        self.url = url
        self._model = model
        self._config = config
        self._places = asyncio.Semaphore(config.concurrency)
        # Its own retries would multiply ours.
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=api_key, max_retries=0, timeout=config.request_deadline_s
        )

    async def complete(
        self,
        messages: Sequence[dict[str, Any]],
        sampling: SamplingConfig,
        schema: dict[str, Any],
        *,
        count: int,
        seed: int,
    ) -> list[Completion]:
        """Ask for ``count`` texts; the k-th is sampled with ``seed + k``.

        Args:
            messages: the chat.
            sampling: temperature and bounds.
            schema: JSON schema that the server holds the texts to.
            count: texts wanted.
            seed: of the first.

        Raises:
            JudgeUnavailableError: every try failed for a reason that passes.
            RequestRefusedError: the server refused the request itself.
            JudgeSetupError: key, model or address are wrong.
        """

        async def request() -> Any:
            create: Any = self._client.chat.completions.create
            return await create(
                model=self._model,
                messages=list(messages),
                n=count,
                seed=seed,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": schema, "strict": True},
                },
                extra_body={"top_k": sampling.top_k},
            )

        async with self._places:
            answer = await self._patiently(request)
        return [
            Completion(choice.message.content or "", finished=choice.finish_reason == "stop")
            for choice in answer.choices
        ]

    async def models(self) -> list[str]:
        """Return the names of the models that the server has; also the check of address and key.

        Raises:
            JudgeUnavailableError, JudgeSetupError: as `complete`.
        """

        async def request() -> list[str]:
            return [model.id async for model in self._client.models.list()]

        names: list[str] = await self._patiently(request)
        return names

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _patiently(self, request: Any) -> Any:
        config = self._config
        tries = AsyncRetrying(
            stop=stop_after_attempt(config.tries),
            wait=wait_exponential_jitter(config.backoff_s, config.backoff_max_s, jitter=config.backoff_s),
            retry=retry_if_exception(_passes),
            before_sleep=before_sleep_log(logger, logging.INFO),
            reraise=True,
        )
        try:
            async for attempt in tries:
                with attempt:
                    # The client's own time-out is for a silent socket; this one is for the whole request.
                    return await asyncio.wait_for(request(), config.request_deadline_s)
        except openai.APIStatusError as error:
            raise self._named(error) from error
        except (openai.APIConnectionError, TimeoutError) as error:
            raise JudgeUnavailableError(
                f"{self.url} did not answer {config.tries} tries ({config.request_deadline_s:g} s each): "
                f"{type(error).__name__} {error}"
            ) from error

    def _named(self, error: openai.APIStatusError) -> Exception:
        said = f"{self.url} answered {error.status_code}: {_message(error)}"
        if _passes(error):
            return JudgeUnavailableError(said)
        if error.status_code in _SETUP_STATUS:
            return JudgeSetupError(f"{said} (model {self._model!r}; check the judge's urls, model and key)")
        return RequestRefusedError(said)


def _passes(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError)


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and "message" in body else error.message
