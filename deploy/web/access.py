"""Who may talk to the page: this machine alone, or, bound elsewhere, whoever has the link."""

import ipaddress
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

TOKEN = "token"
YEAR_S = 365 * 24 * 3600


def is_local(host: str) -> bool:
    """Whether an address or name is this machine as nobody else can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def guard(token: str | None, cookie: str, headers: Mapping[str, str]) -> Middleware:
    """Return the middleware that every request passes.

    Args:
        token: wanted in the first link, then in a cookie; None admits this machine alone.
        cookie: its name.
        headers: for all answers.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = _refusal(request, token, cookie) or _welcome(request, token, cookie) or await _answer(request, handler)
        answer.headers.update(headers)
        return answer

    return check


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.text}, status=error.status)


def _refusal(request: web.Request, token: str | None, cookie: str) -> web.Response | None:
    if token is None:
        # A foreign page can point its own name at this machine; its name then stands in the Host header.
        if is_local(_hostname(request)):
            return None
        return web.Response(status=403, text="This page is for its own machine; serve it with --host for others.")
    if any(_same(given, token) for given in (request.query.get(TOKEN, ""), request.cookies.get(cookie, ""))):
        return None
    return web.Response(status=403, text="The link is not whole; ask whoever sent it for the whole one.")


def _welcome(request: web.Request, token: str | None, cookie: str) -> web.Response | None:
    """Move the token from the address, which people copy and look over shoulders at, to a cookie."""
    if token is None or TOKEN not in request.query:
        return None
    answer = web.Response(status=302, headers={"Location": request.path})
    # Lax: a link in a letter must work, and the redirect that follows it counts as the letter's.
    answer.set_cookie(cookie, token, max_age=YEAR_S, httponly=True, samesite="Lax")
    return answer


def _hostname(request: web.Request) -> str:
    try:
        return urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return ""


def _same(given: str, wanted: str) -> bool:
    # A header's bytes that are no UTF-8 come as half surrogates, which have no bytes otherwise.
    return secrets.compare_digest(given.encode("utf-8", "backslashreplace"), wanted.encode())
