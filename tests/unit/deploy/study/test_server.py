import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from deploy.study.blinding import REGION, Blinding
from deploy.study.server import make_app
from deploy.study.votes import BallotBox, Votes
from deploy.web.access import is_local
from rc_grpo.evaluation.journal import Journal
from tests.unit.deploy.study.benches import betrays, headers_of

Client = TestClient[Any, Any]


def served(
    blinding: Blinding, folder: Path, visit: Callable[[Client], Awaitable[None]], token: str | None = None
) -> Votes:
    """Serve a study, let somebody visit it, and return the votes."""

    async def serve() -> None:
        with BallotBox.opened(folder / "votes.jsonl") as (box, _):
            async with TestClient(TestServer(make_app(blinding, box, token=token))) as client:
                await visit(client)

    asyncio.run(serve())
    return Votes.read(folder / "votes.jsonl")


async def join(client: Client, name: str = "ada") -> Any:
    answer = await client.post("/api/participant", json={"name": name})
    assert answer.status == 200
    return await answer.json()


async def trial(client: Client, number: int) -> Any:
    return await (await client.get(f"/api/trials/{number}")).json()


async def vote(client: Client, of: Any, choice: str | None) -> ClientResponse:
    return await client.post("/api/votes", json={"trial": of["trial"], "choice": choice})


def test_no_response_names_a_model(blinding: Blinding, tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def visit(client: Client) -> None:
        async def look(path: str, body: Any = None) -> Any:
            answer = await (client.get(path) if body is None else client.post(path, json=body))
            data = await answer.read()
            seen.append(str(answer.url).encode() + headers_of(answer.headers) + data)
            return json.loads(data) if answer.content_type == "application/json" else data

        await look("/")
        await look("/api/progress")
        await look("/api/participant", {"name": "Ada"})
        for number in range(1, 6):
            asked = await look(f"/api/trials/{number}")
            for name in (asked["source"], asked["region"], *asked["edits"]):
                await look(f"/pictures/{name}.png")
            await look("/api/votes", {"trial": asked["trial"], "choice": asked["edits"][0]})
            await look("/api/votes", {"trial": asked["trial"], "choice": "zzz"})
            await look(f"/api/trials/{number}")
        await look("/api/trials/99")
        await look("/pictures/00.png")
        await look("/elsewhere")

    assert len(served(blinding, tmp_path, visit).counted) == 5
    assert len(seen) == 51
    assert [names for data in seen if (names := betrays(data))] == []


def test_a_picture_that_went_missing_is_said_to_the_keeper_alone(
    blinding: Blinding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> bytes:
        raise ValueError("the edit: cannot read zebra_local/add/1.png")

    monkeypatch.setattr("deploy.study.pictures.Pictures.png", gone)

    async def visit(client: Client) -> None:
        name = blinding.picture(blinding.material.examples[0], REGION)
        answer = await client.get(f"/pictures/{name}.png")
        assert answer.status == 503
        assert betrays(await answer.read()) == []

    served(blinding, tmp_path, visit)
    assert "zebra_local" in caplog.text


def test_the_answers_of_two_models_differ_in_nothing_but_the_picture(blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        await join(client)
        asked = await trial(client, 1)
        answers = [await client.get(f"/pictures/{name}.png") for name in asked["edits"]]
        volatile = {"Content-Length", "Date"}
        headers = [{k: v for k, v in answer.headers.items() if k not in volatile} for answer in answers]
        assert headers[0] == headers[1] == headers[2]
        assert not {"Last-Modified", "ETag", "Content-Disposition"} & headers[0].keys()

    served(blinding, tmp_path, visit)


def test_a_vote_counts_for_the_model_that_was_shown_there(blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        await join(client)
        for number in (1, 2):
            asked = await trial(client, number)
            assert asked["answer"] is None
            assert (await vote(client, asked, asked["edits"][number])).status == 200
            assert (await trial(client, number))["answer"] == {"choice": asked["edits"][number]}
        assert (await vote(client, await trial(client, 3), None)).status == 200
        assert (await trial(client, 3))["answer"] == {"choice": None}

    votes = served(blinding, tmp_path, visit)
    trials = blinding.trials("ada")
    assert [v.choice for v in votes.counted.values()] == [trials[0].shown[1], trials[1].shown[2], None]
    assert [v.task_id for v in votes.counted.values()] == [t.example.task_id for t in trials[:3]]
    assert [v.shown for v in votes.counted.values()] == [t.shown for t in trials[:3]]


def test_a_participant_goes_on_at_the_first_trial_without_an_answer(blinding: Blinding, tmp_path: Path) -> None:
    async def begin(client: Client) -> None:
        assert await join(client, " Ada  Lovelace ") == {
            "participant": "ada lovelace",
            "total": 5,
            "answered": 0,
            "next": 1,
        }
        for number in (1, 3):
            await vote(client, await trial(client, number), None)

    async def go_on(client: Client) -> None:
        assert (await (await client.get("/api/progress")).json())["participant"] is None
        assert await join(client, "ADA LOVELACE") == {
            "participant": "ada lovelace",
            "total": 5,
            "answered": 2,
            "next": 2,
        }
        for number in (2, 4, 5):
            answer = await (await vote(client, await trial(client, number), None)).json()
        assert answer["next"] is None
        assert (await join(client, ""))["participant"].startswith("guest-")
        assert (await (await client.get("/api/progress")).json())["answered"] == 0

    served(blinding, tmp_path, begin)
    assert len(served(blinding, tmp_path, go_on).counted) == 5


def test_what_is_no_vote_is_refused_and_not_written(blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        asked_by_nobody = await client.get("/api/trials/1")
        assert asked_by_nobody.status == 401
        await join(client)
        first, second = await trial(client, 1), await trial(client, 2)
        for body in (
            {"trial": "no such", "choice": None},
            {"trial": None, "choice": None},
            {"trial": first["trial"], "choice": "no such"},
            {"trial": first["trial"], "choice": second["edits"][0]},
            {"trial": first["trial"], "choice": first["source"]},
            {"trial": first["trial"], "choice": 1},
            {"trial": first["trial"], "choice": [None]},
            {"trial": first["trial"]},
            {"choice": None},
            [],
        ):
            answer = await client.post("/api/votes", json=body)
            assert answer.status == 400, body
            assert (await answer.json())["error"]
        torn = await client.post("/api/votes", data=b"{", headers={"Content-Type": "application/json"})
        assert torn.status == 400
        form = await client.post("/api/votes", data={"trial": first["trial"]})
        assert form.status == 415
        for name in ("x" * 41, "a\u0007b", 5, None):
            assert (await client.post("/api/participant", json={"name": name})).status == 400
        huge = await client.post("/api/votes", json={"trial": "x" * 20000})
        assert huge.status == 413

    assert served(blinding, tmp_path, visit).counted == {}


def test_a_vote_that_could_not_be_saved_is_not_acknowledged(
    blinding: Blinding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def visit(client: Client) -> None:
        await join(client)
        asked = await trial(client, 1)
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "append", full)
            assert (await vote(client, asked, None)).status == 503
            assert (await trial(client, 1))["answer"] is None
        assert (await vote(client, asked, None)).status == 200

    assert len(served(blinding, tmp_path, visit).counted) == 1


def test_without_the_link_s_token_nothing_is_shown(blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        for path in ("/", "/api/progress", "/?token=wrong", "/?token=%C3%A9", "/pictures/00.png"):
            answer = await client.get(path)
            assert (answer.status, "whole" in await answer.text()) == (403, True), path
        assert (await client.post("/api/participant", json={"name": "ada"})).status == 403
        welcome = await client.get(f"/?token={blinding.token}", allow_redirects=False)
        assert (welcome.status, welcome.headers["Location"]) == (302, "/")
        assert (await client.get("/api/progress")).status == 200
        await join(client)

    served(blinding, tmp_path, visit, token=blinding.token)


def test_on_this_machine_a_foreign_name_is_refused(blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        for host, status in (
            ("evil.example", 403),
            ("evil.example:8100", 403),
            ("localhost:8100", 200),
            ("[::1]:1", 200),
        ):
            assert (await client.get("/", headers={"Host": host})).status == status, host

    served(blinding, tmp_path, visit)
    assert [is_local(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "me")] == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_the_page_asks_nobody_else_for_anything(blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        answer = await client.get("/")
        page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
        assert "://" not in page
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    served(blinding, tmp_path, visit)


BODIES = {
    "brackets": (b"[" * 10_000, "application/json"),
    "digits": (b'{"name": ' + b"9" * 5000 + b"}", "application/json"),
    "latin-1": (b'{"name": "\xe9"}', "application/json"),
    "half an emoji": (b'{"name": "\\ud83d"}', "application/json"),
    "a charset that is none": (b"{", "application/json; charset=nonsense"),
    "a list": (b"[]", "application/json"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none_is_the_visitors_error_and_not_the_servers(
    name: str, blinding: Blinding, tmp_path: Path
) -> None:
    body, kind = BODIES[name]

    async def visit(client: Client) -> None:
        for path in ("/api/participant", "/api/votes"):
            await join(client)
            answer = await client.post(path, data=body, headers={"Content-Type": kind})
            assert answer.status == 400, path
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    served(blinding, tmp_path, visit)


@pytest.mark.parametrize("header", [b"Host: [::1", b"Host: \xff", b"Host: x\r\nCookie: study_x_link=\xff\xfe"])
def test_headers_that_are_none_are_refused_like_strangers(header: bytes, blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        cookie = f"study_{blinding.study}_link".encode()
        writer.write(b"GET / HTTP/1.1\r\n" + header.replace(b"study_x_link", cookie) + b"\r\nConnection: close\r\n\r\n")
        status = (await reader.read()).split(b"\r\n")[0]
        writer.close()
        assert status.split()[1] in (b"400", b"403"), status

    for token in (None, blinding.token):
        served(blinding, tmp_path, visit, token=token)


def test_another_site_can_neither_vote_nor_name_somebody(blinding: Blinding, tmp_path: Path) -> None:
    async def visit(client: Client) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = await client.post("/api/participant", data=b'{"name": "ada"}', headers={"Content-Type": kind})
            assert answer.status == 415
        joined = await client.post("/api/participant", json={"name": "ada"})
        assert "HttpOnly" in joined.headers["Set-Cookie"]
        assert "SameSite=Lax" in joined.headers["Set-Cookie"]

    served(blinding, tmp_path, visit)
