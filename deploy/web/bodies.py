"""What a page's own script sends, and nobody else can have a browser send."""

import json
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web


async def json_body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        web.HTTPException: it has none, or one of another type; says which.
    """
    # Other sites can send forms here, but not JSON without asking the browser first.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send JSON")
    try:
        body = json.loads(await request.read())
    # Thousands of brackets are a RecursionError.
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text="the body is not JSON") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    return body


def require_own_page(request: web.Request) -> None:
    """Refuse a request that no page of this very server made: a cookie goes to other ports of its host as well.

    Raises:
        web.HTTPForbidden: its origin is another, or is not told.
    """
    try:
        origin = urlsplit(request.headers.get("Origin", "")).netloc
    except ValueError:
        origin = ""
    if not origin or origin != request.host or request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise web.HTTPForbidden(text="only the page itself may ask for that")
