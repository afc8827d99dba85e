"""The live page of a run, the stream of its changes, and the two orders that it takes."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, ValidationError

from deploy.records.folder import RunFolder
from deploy.watch.board import Board
from deploy.watch.keeper import Keeper
from deploy.watch.line import Driver, NotReachableError
from deploy.watch.view import View
from deploy.web.access import guard
from deploy.web.bodies import json_body, require_own_page
from rc_grpo.kept import Form

VIEWERS_AT_MOST = 32
BEAT_S = 5.0
SEND_DEADLINE_S = 30.0
"""A viewer who takes nothing for so long is let go; a browser comes back by itself, and gets what it missed."""
LARGEST_BODY = 4 << 10


class _Scale(Form):
    pool: Annotated[str, Field(min_length=1, max_length=200)]
    workers: Annotated[int, Field(ge=1, le=100_000)]


def make_app(folder: RunFolder, driver: Driver, token: str) -> web.Application:
    """Return the application.

    Args:
        folder: of the run.
        driver: of the run: asked about it, and told.
        token: wanted in the first link, then in a cookie, of everybody.
    """
    view, board = View(folder), Board()
    keeper = Keeper(view, driver, board)
    # A cookie goes to all ports of its host: pages of several runs have one each.
    cookie = f"watch_{hashlib.sha256(token.encode()).hexdigest()[:12]}"
    app = web.Application(middlewares=[guard(token, cookie, {})], client_max_size=LARGEST_BODY)
    desk = _Desk(folder, view, board, driver)
    app.add_routes(
        [
            web.get("/", desk.page),
            web.get("/events", desk.events),
            web.get(r"/grid/{update:\d{1,9}}.png", desk.grid),
            web.post("/scale", desk.scale),
            web.post("/stop", desk.stop),
        ]
    )

    async def kept(_: web.Application) -> AsyncIterator[None]:
        async with keeper.keeping():
            yield

    async def closing(_: web.Application) -> None:
        board.close()

    headers = {
        "Content-Security-Policy": view.policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Server": "rc-grpo",
    }

    async def with_headers(_: web.Request, answer: web.StreamResponse) -> None:
        # Here, and not after the answer was made: a stream's head is gone by then.
        answer.headers.update(headers)

    app.cleanup_ctx.append(kept)
    app.on_shutdown.append(closing)
    app.on_response_prepare.append(with_headers)
    return app


class _Desk:
    """Answers requests; whoever comes so far has the token."""

    def __init__(self, folder: RunFolder, view: View, board: Board, driver: Driver) -> None:
        self._folder, self._view, self._board, self._driver = folder, view, board, driver

    async def page(self, request: web.Request) -> web.Response:
        text = self._view.page(self._board.since(""), self._board.mark)
        # A driver may quote half an emoji, which has no bytes.
        body = text.encode("utf-8", "replace")
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers={"Cache-Control": "no-store"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        if self._board.viewers >= VIEWERS_AT_MOST:
            raise web.HTTPServiceUnavailable(text=f"{VIEWERS_AT_MOST} look already; close some of the pages")
        mark = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        with self._board.watched():
            await answer.prepare(request)
            try:
                await _send(answer, "retry: 2000\n\n")
                while not self._board.closed:
                    changed = await self._board.news(mark, BEAT_S)
                    if changed:
                        mark = self._board.mark
                        # JSON has no line of its own to be taken for the stream's.
                        await _send(answer, f"id: {mark}\nevent: parts\ndata: {json.dumps(changed)}\n\n")
                    else:
                        await _send(answer, "event: beat\ndata: 1\n\n")
            except (TimeoutError, ConnectionError):
                # They went away, or take nothing.
                if request.transport is not None:
                    request.transport.abort()
        return answer

    async def grid(self, request: web.Request) -> web.StreamResponse:
        path = self._folder.grids().get(int(request.match_info["update"]))
        if path is None:
            raise web.HTTPNotFound(text="there is no such grid")
        return web.FileResponse(path, headers={"Cache-Control": "private, max-age=3600"})

    async def scale(self, request: web.Request) -> web.Response:
        require_own_page(request)
        try:
            wanted = _Scale.model_validate(await json_body(request))
        except ValidationError as error:
            raise web.HTTPBadRequest(text="name a pool, and how many workers it is to have, from 1") from error
        return await self._order("scale", wanted.pool, wanted.workers)

    async def stop(self, request: web.Request) -> web.Response:
        require_own_page(request)
        await json_body(request)
        return await self._order("stop")

    async def _order(self, verb: str, *arguments: str | int) -> web.Response:
        try:
            said: Any = await self._driver.ask(verb, *arguments)
        except NotReachableError as error:
            raise web.HTTPServiceUnavailable(text=f"the run's driver does not answer: {error}") from error
        return web.json_response({"said": str(said)}, headers={"Cache-Control": "no-store"})


async def _send(answer: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(SEND_DEADLINE_S):
        await answer.write(text.encode())
