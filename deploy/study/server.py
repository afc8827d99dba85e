"""The study's page and the few requests behind it. What leaves here is opaque: no model is named in any answer."""

import asyncio
import logging
import re
import secrets
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from deploy.study.blinding import REGION, SOURCE, Blinding, Trial, edit_of
from deploy.study.pictures import Pictures
from deploy.study.votes import BallotBox, Vote
from deploy.web.access import YEAR_S, guard
from deploy.web.bodies import json_body
from deploy.web.policy import digest

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page.html")
LONGEST_PARTICIPANT = 40
LARGEST_BODY = 16 << 10


def make_app(blinding: Blinding, box: BallotBox, *, token: str | None) -> web.Application:
    """Return the application.

    Args:
        blinding: of the study.
        box: takes the votes.
        token: see `deploy.web.access.guard`.
    """
    page = PAGE.read_text()
    prefix = f"study_{blinding.study}"
    app = web.Application(middlewares=[guard(token, f"{prefix}_link", _headers(page))], client_max_size=LARGEST_BODY)
    desk = _Desk(blinding, box, page, f"{prefix}_participant")
    app.add_routes(
        [
            web.get("/", desk.page),
            web.get("/api/progress", desk.progress),
            web.post("/api/participant", desk.join),
            web.get(r"/api/trials/{number:\d{1,6}}", desk.trial),
            web.post("/api/votes", desk.vote),
            web.get(r"/pictures/{name:[0-9a-f]+}.png", desk.picture),
        ]
    )
    return app


class _Desk:
    """Answers requests; a participant is known by a cookie."""

    def __init__(self, blinding: Blinding, box: BallotBox, page: str, cookie: str) -> None:
        self._blinding, self._box, self._page, self._cookie = blinding, box, page, cookie
        self._pictures = Pictures(blinding)

    async def page(self, request: web.Request) -> web.Response:
        return web.Response(text=self._page, content_type="text/html", headers={"Cache-Control": "no-store"})

    async def progress(self, request: web.Request) -> web.Response:
        raw = request.cookies.get(self._cookie)
        total = len(self._blinding.material.examples)
        return _json({"participant": None, "total": total} if raw is None else self._progress(self._who(request)))

    async def join(self, request: web.Request) -> web.Response:
        name = _participant((await json_body(request)).get("name"))
        answer = _json(self._progress(name))
        answer.set_cookie(self._cookie, quote(name), max_age=YEAR_S, httponly=True, samesite="Lax")
        return answer

    async def trial(self, request: web.Request) -> web.Response:
        participant = self._who(request)
        trials, number = self._blinding.trials(participant), int(request.match_info["number"])
        if not 1 <= number <= len(trials):
            raise web.HTTPNotFound(text=f"there is no trial {number}; they are 1..{len(trials)}")
        trial = trials[number - 1]
        vote = self._box.of(participant).get(trial.example.task_id)
        choice = None if vote is None or vote.choice is None else self._edit(trial, vote.choice)
        return _json(
            {
                "number": number,
                "trial": trial.name,
                "instruction": trial.example.instruction,
                "source": self._blinding.picture(trial.example, SOURCE),
                "region": self._blinding.picture(trial.example, REGION),
                "edits": [self._edit(trial, model) for model in trial.shown],
                "answer": None if vote is None else {"choice": choice},
            }
        )

    async def vote(self, request: web.Request) -> web.Response:
        participant, body = self._who(request), await json_body(request)
        trial = next((each for each in self._blinding.trials(participant) if each.name == body.get("trial")), None)
        if trial is None:
            raise web.HTTPBadRequest(text="there is no such trial")
        by_name: dict[Any, str | None] = {self._edit(trial, model): model for model in trial.shown} | {None: None}
        # A choice that was forgotten must not count as "not sure", which is a null that was sent.
        choice = body.get("choice", "")
        if not isinstance(choice, str | None) or choice not in by_name:
            raise web.HTTPBadRequest(text="the choice is none of this trial's edits, nor null for not sure")
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            await self._box.cast(Vote(participant, trial.example.task_id, by_name[choice], trial.shown, at))
        except OSError as error:
            logger.error("a vote of %s could not be written: %s", participant, error)
            raise web.HTTPServiceUnavailable(text="the vote could not be saved; try again") from error
        return _json(self._progress(participant))

    async def picture(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._blinding.pictures:
            raise web.HTTPNotFound(text="there is no such picture")
        try:
            data = await asyncio.to_thread(self._pictures.png, name)
        except ValueError as error:
            # The reason names files, and with them models: it is for the study's keeper alone.
            logger.error("a picture of %s: %s", self._blinding.pictures[name][0].task_id, error)
            raise web.HTTPServiceUnavailable(text="the picture cannot be read") from error
        return web.Response(body=data, content_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    def _edit(self, trial: Trial, model: str) -> str:
        return self._blinding.picture(trial.example, edit_of(model))

    def _who(self, request: web.Request) -> str:
        raw = request.cookies.get(self._cookie)
        if raw is None:
            raise web.HTTPUnauthorized(text="say who you are first")
        return _participant(unquote(raw))

    def _progress(self, participant: str) -> dict[str, Any]:
        trials, answered = self._blinding.trials(participant), self._box.of(participant)
        pending = (number for number, trial in enumerate(trials, 1) if trial.example.task_id not in answered)
        done = sum(trial.example.task_id in answered for trial in trials)
        return {"participant": participant, "total": len(trials), "answered": done, "next": next(pending, None)}


def _participant(name: Any) -> str:
    """Return a participant's name in the one spelling under which votes are kept; an empty one is drawn."""
    if not isinstance(name, str):
        raise web.HTTPBadRequest(text="a name is text")
    name = unicodedata.normalize("NFKC", " ".join(name.split())).casefold()
    if not name.isprintable() or len(name) > LONGEST_PARTICIPANT:
        raise web.HTTPBadRequest(text=f"a name is at most {LONGEST_PARTICIPANT} printable characters")
    return name or f"guest-{secrets.token_hex(4)}"


def _json(value: dict[str, Any]) -> web.Response:
    return web.json_response(value, headers={"Cache-Control": "no-store"})


def _headers(page: str) -> dict[str, str]:
    """Return what keeps the page to itself: nothing but its own script and style runs, nothing else is asked for."""
    script, style = (_hash_of(tag, page) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Server": "study",
    }


def _hash_of(tag: str, page: str) -> str:
    match = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    if match is None:
        raise ValueError(f"{PAGE} has no <{tag}>; reinstall rc-grpo")
    return f"'{digest(match[1])}'"
