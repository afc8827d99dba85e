"""HTTP to a judge's server, one policy for probe, metrics and chat.

Proxies: what the environment names (``http_proxy``, ``https_proxy``, ``all_proxy``, ``no_proxy``, in either case) holds
for servers elsewhere, and never for a loopback address, as no proxy leads to this machine. Redirects are answers, not
followed: the key would go where nobody sent it. What is read of an answer is bounded in time and in size.
"""

import asyncio
import ipaddress
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.request import getproxies

import httpx

from rc_grpo.storable import one_line
from reward_service.judge import JudgeSetupError

LIMIT_BYTES = 4 * 2**20
"""Of an answer's body; a completion has some kilobytes, vLLM's metrics a hundred."""

QUOTED_CHARACTERS = 300
"""Of what a server said, in messages."""

IDLE_S = 2.0
"""A connection that was not used for so long is let go. A server of uvicorn's, as vLLM's is, lets go after five
seconds, and so would httpx: a request that is sent in that moment is lost."""

POOLS = 16
"""Of connections: for every request httpx looks through all that its pool holds, and there are hundreds."""

_CONNECT_S = 10.0
_LATER = (408, 425, 429)
_NOWHERE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol, httpx.InvalidURL)


class NoReplyError(RuntimeError):
    """No answer came; the message says why in a few words."""


class UnreachableError(NoReplyError):
    """There is nothing to connect to: nobody listens there, or no such host."""


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        status: HTTP's.
        text: the body, at most `LIMIT_BYTES` of it.
        whole: False where the body is longer.
        location: where a redirect points, or nothing.
    """

    status: int
    text: str
    whole: bool = True
    location: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the server did what it was asked for."""
        return 200 <= self.status < 300

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later. What a server has not implemented (501) stays so."""
        return self.status in _LATER or (self.status >= 500 and self.status != 501)

    @property
    def gist(self) -> str:
        """What it says, on one line: an error's message where there is one, else how the body begins."""
        if self.location:
            return f"a redirect to {one_line(self.location, QUOTED_CHARACTERS)}"
        try:
            said = _message(json.loads(self.text))
        except (ValueError, RecursionError):
            said = None
        return one_line(said or self.text, QUOTED_CHARACTERS) or "an empty body"


class Transport:
    """Sends requests to whatever server.

    Args:
        deadline: seconds within which a request must be answered, body and all.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._clients: dict[tuple[bool, int], httpx.AsyncClient] = {}
        self._under_way = [0] * POOLS

    async def send(self, method: str, url: str, *, key: str = "", body: Any = None) -> Reply:
        """Send one request.

        Args:
            method: GET or POST.
            url: whole.
            key: sent as a bearer token, if any.
            body: sent as JSON, if any.

        Raises:
            NoReplyError: no answer came in time, or none that is HTTP.
            UnreachableError: there is nobody to answer.
            JudgeSetupError: the key cannot be sent, or the environment's proxy cannot be used.
        """
        headers = {"Accept-Encoding": "identity"} | _authorisation(key)
        # With escapes, as what came in may hold half a surrogate pair.
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        pool = self._under_way.index(min(self._under_way))
        self._under_way[pool] += 1
        try:
            async with asyncio.timeout(self._deadline):
                async with self._client(url, pool).stream(method, url, headers=headers, content=content) as answer:
                    return await _read(answer)
        except TimeoutError as error:
            raise NoReplyError(f"no answer within {self._deadline:g} s") from error
        # A name that no name server would take is a UnicodeError of Python's own.
        except (*_NOWHERE, UnicodeError) as error:
            raise UnreachableError(_in_words(error) + _by_proxy(url)) from error
        except httpx.RequestError as error:
            raise NoReplyError(_in_words(error)) from error
        finally:
            self._under_way[pool] -= 1

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, url: str, pool: int) -> httpx.AsyncClient:
        here = is_loopback(url)
        chosen = here, pool
        if chosen not in self._clients:
            limits = httpx.Limits(max_connections=None, keepalive_expiry=IDLE_S)
            try:
                self._clients[chosen] = httpx.AsyncClient(
                    # A transport of one's own is what httpx does not put proxies before.
                    transport=httpx.AsyncHTTPTransport(verify=_tls(), limits=limits) if here else None,
                    verify=_tls(),
                    limits=limits,
                    timeout=httpx.Timeout(None, connect=min(_CONNECT_S, self._deadline)),
                    follow_redirects=False,
                )
            except (ValueError, ImportError, httpx.InvalidURL) as error:
                raise JudgeSetupError(
                    f"{url}: the proxy that http_proxy, https_proxy or all_proxy names cannot be used "
                    f"({one_line(str(error), QUOTED_CHARACTERS)}); correct it, or exempt the host by no_proxy"
                ) from error
        return self._clients[chosen]


def is_loopback(url: str) -> bool:
    """Whether a URL points to the machine it is used on, in any of the ways to write that."""
    try:
        host = httpx.URL(url).host.rstrip(".").lower()
    # A host that is no name in any alphabet is a UnicodeError, of Python's or of IDNA's own.
    except (httpx.InvalidURL, UnicodeError):
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            # 127.1, 0x7f000001: what connects there.
            address = ipaddress.ip_address(socket.inet_aton(host))
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


@cache
def _tls() -> ssl.SSLContext:
    # To read all authorities takes longer than a request.
    return httpx.create_ssl_context()


async def _read(answer: httpx.Response) -> Reply:
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > LIMIT_BYTES:
            break
    text = bytes(body[:LIMIT_BYTES]).decode("utf-8-sig", "replace")
    location = answer.headers.get("location", "") if 300 <= answer.status_code < 400 else ""
    return Reply(answer.status_code, text, len(body) <= LIMIT_BYTES, location)


def _authorisation(key: str) -> dict[str, str]:
    if not key:
        return {}
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise JudgeSetupError(
            "the judge's key cannot be sent: it holds a line end, a space at an end, or what is not ASCII; set it anew"
        )
    return {"Authorization": f"Bearer {key}"}


def _message(content: Any) -> str | None:
    """Return the message of an error body: OpenAI's ``error.message``, or what others put at its places."""
    if not isinstance(content, dict):
        return None
    for name in ("error", "message", "detail"):
        value = content.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, dict) and (inner := _message(value)):
            return inner
    return None


def _in_words(error: BaseException) -> str:
    for cause in _causes(error):
        match cause:
            case ConnectionRefusedError():
                return "connection refused"
            case socket.gaierror() | UnicodeError():
                return "unknown host"
            case ssl.SSLError():
                return f"no TLS connection ({one_line(cause.reason or str(cause), QUOTED_CHARACTERS)})"
            case httpx.ConnectTimeout():
                return "no connection in time"
            case OSError(errno=int(number)):
                return os.strerror(number).lower()
    return one_line(f"{type(error).__name__} {error}", QUOTED_CHARACTERS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what an error came of, the innermost first; of several addresses that were tried, each."""
    inner = error.__cause__ or error.__context__
    if inner is not None:
        yield from _causes(inner)
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _causes(part)
    yield error


def _by_proxy(url: str) -> str:
    if is_loopback(url) or not getproxies().keys() & {"http", "https", "all"}:
        return ""
    return " (by the environment's proxy, unless no_proxy exempts the host)"
