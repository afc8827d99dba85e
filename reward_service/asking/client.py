"""Asking a server of the OpenAI chat protocol: bounded, with deadlines, patient with what passes.

Tried again: connection errors, time-outs, 408, 425, 429, 5xx, and a success that holds no answer of the protocol (a
login page, half a body), with exponential backoff and jitter. Anything else stays the same however often it is asked.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from rc_grpo.config import ClientConfig, SamplingConfig
from rc_grpo.storable import one_line
from reward_service.asking.openai_answers import (
    Chance,
    Completion,
    ForeignAnswerError,
    read_chances,
    read_completions,
    read_models,
)
from reward_service.asking.transport import QUOTED_CHARACTERS, NoReplyError, Reply, Transport
from reward_service.judge import JudgeSetupError, JudgeUnavailableError

logger = logging.getLogger(__name__)
Read = TypeVar("Read")
_SETUP_STATUS = (401, 403, 404)
_MODELS_NAMED = 10
_LIKELIEST = 20
"""Tokens whose chances are asked for: as many as OpenAI's protocol, and vLLM as it comes, allow."""


class RequestRefusedError(ValueError):
    """The server will not answer this request, today or ever: a bad image, a prompt that is too long."""


class ForeignServerError(JudgeUnavailableError):
    """What answers at the server's address, every time, is not of the protocol."""


class ChatClient:
    """Asks one server.

    Args:
        url: of the API, ``http://host:port/v1``.
        api_key: sent with every request, if it is not empty.
        model: name under which the server has the judge.
        config: concurrency, deadlines, tries.
    """

    def __init__(self, url: str, api_key: str, model: str, config: ClientConfig) -> None:
        self.url = url
        self._key = api_key
        self._model = model
        self._config = config
        self._places = asyncio.Semaphore(config.concurrency)
        self._transport = Transport(config.request_deadline_s)

    async def complete(
        self,
        messages: Sequence[dict[str, Any]],
        sampling: SamplingConfig,
        schema: dict[str, Any] | None,
        *,
        count: int,
        seed: int,
    ) -> list[Completion]:
        """Ask for ``count`` texts; the k-th is sampled with ``seed + k``. A server may send another number of them.

        Args:
            messages: the chat.
            sampling: temperature and bounds.
            schema: JSON schema that the server holds the texts to; None for free ones.
            count: texts wanted.
            seed: of the first.

        Raises:
            JudgeUnavailableError: every try failed for a reason that passes.
            ForeignServerError: of which the last was an answer that is no completion.
            RequestRefusedError: the server refused the request itself.
            JudgeSetupError: key, model or address are wrong.
        """
        body = {
            "model": self._model,
            "messages": list(messages),
            "n": count,
            "seed": seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
        }
        return await self._chat(body, schema, read_completions)

    async def first_token(
        self, messages: Sequence[dict[str, Any]], schema: dict[str, Any] | None = None
    ) -> list[Chance]:
        """Ask which tokens an answer might begin with, the 20 likeliest, as the model gives them.

        Args:
            messages: the chat.
            schema: JSON schema that the server holds the answer to; the chances are then of what it allows.

        Raises:
            JudgeUnavailableError, ForeignServerError, RequestRefusedError, JudgeSetupError: as `complete`.
        """
        body = {
            "model": self._model,
            "messages": list(messages),
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": _LIKELIEST,
            # The model's own chances, also of a server that tells them after sampling's changes to them.
            "temperature": 1.0,
            "top_p": 1.0,
        }
        return await self._chat(body, schema, read_chances)

    async def models(self) -> list[str]:
        """Return the names of the models that the server has; also the check of address and key.

        Raises:
            JudgeUnavailableError, JudgeSetupError: as `complete`.
        """
        return await self._patiently("GET", "models", read_models)

    async def require_model(self) -> None:
        """Check address, key and model.

        Raises:
            JudgeUnavailableError: as `complete`.
            JudgeSetupError: one of them is wrong.
        """
        try:
            served = await self.models()
        except RequestRefusedError as error:
            raise JudgeSetupError(f"{error}; a server of the OpenAI chat protocol lists its models there") from error
        if self._model not in served:
            named = ", ".join(one_line(name, QUOTED_CHARACTERS) for name in served[:_MODELS_NAMED])
            more = f" and {len(served) - _MODELS_NAMED} more" if len(served) > _MODELS_NAMED else ""
            raise JudgeSetupError(
                f"the server at {self.url} has no model {self._model!r}; it has {named or 'none'}{more}"
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def _chat(self, body: dict[str, Any], schema: dict[str, Any] | None, read: Callable[[str], Read]) -> Read:
        if schema is not None:
            held = {"name": "answer", "schema": schema, "strict": True}
            body = body | {"response_format": {"type": "json_schema", "json_schema": held}}
        async with self._places:
            return await self._patiently("POST", "chat/completions", read, body)

    async def _patiently(self, method: str, path: str, read: Callable[[str], Read], body: Any = None) -> Read:
        config, url = self._config, f"{self.url}/{path}"
        tries = AsyncRetrying(
            stop=stop_after_attempt(config.tries),
            wait=wait_exponential_jitter(config.backoff_s, config.backoff_max_s, jitter=config.backoff_s),
            retry=retry_if_exception_type((NoReplyError, JudgeUnavailableError)),
            before_sleep=before_sleep_log(logger, logging.INFO),
            reraise=True,
        )

        async def request() -> Read:
            reply = await self._transport.send(method, url, key=self._key, body=body)
            return self._understood(reply, url, read)

        try:
            return await tries(request)
        except NoReplyError as error:
            raise JudgeUnavailableError(
                f"{url} did not answer {config.tries} tries ({config.request_deadline_s:g} s each): {error}"
            ) from error

    def _understood(self, reply: Reply, url: str, read: Callable[[str], Read]) -> Read:
        if not reply.is_success:
            raise self._named(reply, url)
        try:
            return read(reply.text)
        except ForeignAnswerError as error:
            held = str(error) if reply.whole else "more than can be one"
            raise ForeignServerError(
                f"{url} answered {reply.status}, and not by the OpenAI protocol ({held}): {reply.gist}"
            ) from error

    def _named(self, reply: Reply, url: str) -> Exception:
        said = f"{url} answered {reply.status}: {reply.gist}"
        if reply.passes:
            return JudgeUnavailableError(said)
        if reply.status < 400:
            return JudgeSetupError(f"{said}. The key is not sent on; if that is the server, put its address into urls")
        if reply.status in _SETUP_STATUS:
            return JudgeSetupError(f"{said} (model {self._model!r}; check the judge's urls, model and key)")
        return RequestRefusedError(said)
