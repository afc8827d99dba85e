"""Who has the token sees the run and may order; who has not, or comes from another page, sees and orders nothing."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from deploy.records.folder import RunFolder
from deploy.records.metrics import METRICS
from deploy.watch import keeper, server
from deploy.watch.server import make_app
from deploy.watch.view import SLOTS
from tests.unit.deploy.report.folders import write_run
from tests.unit.deploy.watch.watched import TOKEN, StandIn, log_groups, log_update, status

Client = TestClient[Any, Any]
NASTY = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>{{ 7 * 7 }}'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "seen", updates=2, every=1, logged=0, finished=False)
    log_groups(folder, 2, size=3)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(keeper, "_DRAWING_SHARE", 1.0)
    monkeypatch.setattr(server, "BEAT_S", 0.05)


def served(folder: Path, driver: StandIn, visit: Callable[[Client], Awaitable[None]], *, welcome: bool = True) -> None:
    async def serve() -> None:
        async with TestClient(TestServer(make_app(RunFolder(folder), driver, TOKEN))) as client:
            if welcome:
                answer = await client.get("/", params={"token": TOKEN}, allow_redirects=False)
                assert (answer.status, answer.headers["Location"]) == (302, "/")
            await asyncio.wait_for(visit(client), 20)

    asyncio.run(serve())


def own(client: Client) -> dict[str, str]:
    return {"Origin": f"http://{client.host}:{client.port}"}


class Stream:
    """What an EventSource hears."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self._read = b""
        self.id = ""

    async def event(self) -> tuple[str, Any]:
        """Return the next event's name and data; empty at the end."""
        fields: dict[str, str] = {}
        while line := (await self._line()).decode():
            if line == "\n":
                if "data" in fields:
                    self.id = fields.get("id", self.id)
                    return fields.get("event", "message"), json.loads(fields["data"])
                fields = {}
                continue
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value
        return "", None

    async def _line(self) -> bytes:
        # aiohttp's own takes no line of the length of a drawing.
        while b"\n" not in self._read:
            if not (more := await self._answer.content.readany()):
                return b""
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line + b"\n"

    async def parts(self, until: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        seen: dict[str, str] = {}
        while not until(seen):
            name, data = await self.event()
            assert name, "the stream ended"
            seen |= data if name == "parts" else {}
        return seen


async def listen(client: Client, **headers: str) -> Stream:
    answer = await client.get("/events", headers=headers)
    assert (answer.status, answer.content_type) == (200, "text/event-stream")
    return Stream(answer)


@pytest.mark.parametrize(
    "given", ["nothing", "another", "its beginning", "more than it", "no ASCII", "another's cookie"]
)
def test_without_the_token_nothing_is_seen_and_nothing_is_ordered(run: Path, given: str) -> None:
    driver = StandIn(status(run))
    tokens = {
        "another": "x" * len(TOKEN),
        "its beginning": TOKEN[:-1],
        "more than it": TOKEN + "a",
        "no ASCII": "é" * 8,
    }
    question = {"token": tokens[given]} if given in tokens else {}

    async def visit(client: Client) -> None:
        if given == "another's cookie":
            client.session.cookie_jar.update_cookies({"watch_0123456789ab": TOKEN})
        for path in ("/", "/events", "/grid/2.png", "/nowhere"):
            answer = await client.get(path, params=question, allow_redirects=False)
            text = await answer.text()
            assert answer.status == 403
            assert "seen" not in text
        for path, body in (("/scale", {"pool": "rollout", "workers": 3}), ("/stop", {})):
            answer = await client.post(path, json=body, headers=own(client))
            assert answer.status == 403

    served(run, driver, visit, welcome=False)
    assert driver.told == []


def test_the_token_moves_from_the_link_to_a_cookie_that_no_script_reads(run: Path) -> None:
    async def visit(client: Client) -> None:
        answer = await client.get("/", params={"token": TOKEN}, allow_redirects=False)
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite" in cookie
        page = await client.get("/")
        assert page.status == 200
        assert TOKEN not in await page.text()

    served(run, StandIn(None), visit, welcome=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[::1"},
        {"Origin": "OWN", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "OWN", "Sec-Fetch-Site": "same-site"},
        {"Origin": "OWN", "Content-Type": "text/plain"},
        {"Origin": "OWN", "Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
def test_another_page_orders_nothing_though_the_browser_sends_the_cookie(run: Path, headers: dict[str, str]) -> None:
    driver = StandIn(status(run))

    async def visit(client: Client) -> None:
        sent = {"Content-Type": "application/json"} | headers
        if sent.get("Origin") == "OWN":
            sent |= own(client)
        for path, body in (("/scale", '{"pool": "rollout", "workers": 3}'), ("/stop", "{}")):
            answer = await client.post(path, data=body, headers=sent)
            assert answer.status in (403, 415)
            assert "error" in await answer.json()

    served(run, driver, visit)
    assert driver.told == []


def test_a_scale_and_a_stop_are_told_to_the_driver_and_its_answers_to_the_page(run: Path) -> None:
    driver = StandIn(status(run))

    async def visit(client: Client) -> None:
        answer = await client.post("/scale", json={"pool": "rollout", "workers": 3}, headers=own(client))
        assert await answer.json() == {"said": "rollout: 2 -> 3 workers"}
        answer = await client.post("/stop", json={}, headers=own(client))
        assert (await answer.json())["said"].startswith("stopping")

    served(run, driver, visit)
    assert driver.told == [("scale", "rollout", 3), ("stop",)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"pool": "rollout"},
        {"workers": 1},
        {"pool": "", "workers": 1},
        {"pool": 3, "workers": 1},
        {"pool": "rollout", "workers": 0},
        {"pool": "rollout", "workers": -1},
        {"pool": "rollout", "workers": "3"},
        {"pool": "rollout", "workers": 1.5},
        {"pool": "rollout", "workers": True},
        {"pool": "rollout", "workers": None},
        {"pool": "rollout", "workers": 10**30},
        {"pool": "x" * 500, "workers": 1},
        [],
        "rollout",
    ],
    ids=str,
)
def test_a_size_that_is_none_is_refused_before_the_driver_hears_of_it(run: Path, body: Any) -> None:
    driver = StandIn(status(run))

    async def visit(client: Client) -> None:
        answer = await client.post("/scale", json=body, headers=own(client))
        assert answer.status == 400

    served(run, driver, visit)
    assert driver.told == []


def test_an_order_that_nobody_takes_says_why(run: Path) -> None:
    async def visit(client: Client) -> None:
        answer = await client.post("/stop", json={}, headers=own(client))
        assert answer.status == 503
        assert "no Ray cluster answers at 10.0.0.7:6379" in (await answer.json())["error"]

    served(run, StandIn(None), visit)


def test_the_stream_brings_every_part_then_what_changes_and_beats_between(run: Path) -> None:
    driver = StandIn(status(run))

    async def visit(client: Client) -> None:
        stream = await listen(client)
        await stream.parts(lambda seen: seen.keys() == set(SLOTS))
        driver.answer = status(run, version="v25:beefbeef")
        changed = await stream.parts(lambda seen: "beefbeef" in seen.get("head", ""))
        assert "curves" not in changed
        assert (await stream.event())[0] == "beat"

    served(run, driver, visit)


def test_who_comes_back_gets_what_they_missed_and_after_another_server_everything(run: Path) -> None:
    driver = StandIn(status(run))

    async def visit(client: Client) -> None:
        stream = await listen(client)
        await stream.parts(lambda seen: seen.keys() == set(SLOTS))
        driver.answer = status(run, version="v26:cafecafe")
        again = await listen(client, **{"Last-Event-ID": stream.id})
        missed = await again.parts(lambda seen: "cafecafe" in seen.get("head", ""))
        assert missed.keys() <= {"head", "pools"}
        other = await listen(client, **{"Last-Event-ID": "0badcafe-7"})
        assert (await other.parts(lambda seen: seen != {})).keys() == set(SLOTS)

    served(run, driver, visit)


def test_the_stream_ends_when_the_server_does(run: Path) -> None:
    async def ended() -> None:
        client: Client = TestClient(TestServer(make_app(RunFolder(run), StandIn(status(run)), TOKEN)))
        await client.start_server()
        await client.get("/", params={"token": TOKEN})
        stream = await listen(client)
        await stream.event()
        closing = asyncio.create_task(client.server.close())
        while (await asyncio.wait_for(stream.event(), 3))[0]:
            pass
        await asyncio.wait_for(closing, 3)
        await client.close()

    asyncio.run(ended())


def test_no_more_look_than_the_server_has_room_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "VIEWERS_AT_MOST", 2)

    async def visit(client: Client) -> None:
        streams = [await listen(client) for _ in range(2)]
        assert (await client.get("/events")).status == 503
        assert all([await stream.event() for stream in streams])

    served(run, StandIn(status(run)), visit)


def test_nobody_is_asked_and_nothing_is_drawn_while_nobody_looks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = StandIn(status(run))
    asked: list[str] = []
    real = driver.ask

    async def counted(verb: str, *arguments: str | int) -> Any:
        asked.append(verb)
        return await real(verb, *arguments)

    monkeypatch.setattr(driver, "ask", counted)

    async def visit(client: Client) -> None:
        await client.get("/")
        await asyncio.sleep(0.1)
        assert asked == []
        stream = await listen(client)
        await stream.event()
        assert asked != []

    served(run, driver, visit)


class Tags(HTMLParser):
    """Counts elements, and attributes that would run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.running: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.running += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def test_what_data_judges_and_drivers_say_is_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "plain", updates=2, every=1, logged=0, finished=False)
    log_groups(folder, 2, size=3, said=[NASTY], failed=[1])
    with (folder / METRICS).open("a") as lines:
        line = {"update": 3, "event": "update", "reward/task_mean": 0.5, f"judge/{NASTY}": 0.25}
        lines.write(json.dumps(line) + "\n")
        lines.write(json.dumps(line | {"update": 4, f"judge/{NASTY}": 0.75}) + "\n")
        lines.write(NASTY + "\n")
    said = status(folder, version=NASTY, groups={NASTY: 3})
    said["waits"] = [{"who": NASTY, "what": NASTY, "seconds": 500.0, "deadline_s": None}]
    said["pools"][NASTY] = said["pools"]["rollout"]

    async def visit(client: Client) -> None:
        stream = await listen(client)
        carriers = ("head", "pools", "groups", "curves")
        parts = await stream.parts(lambda seen: all("onerror" in seen.get(name, "") for name in carriers))
        for text in (*parts.values(), await (await client.get("/")).text()):
            tags = Tags()
            tags.feed(text)
            assert tags.running == []
            assert NASTY not in text
        page = await client.get("/")
        policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"].startswith("'sha256-")
        assert "unsafe" not in policy["script-src"] + policy["style-src"]
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"

    served(folder, StandIn(said), visit)


def test_half_an_emoji_from_a_driver_hurts_neither_page_nor_stream(run: Path) -> None:
    async def visit(client: Client) -> None:
        stream = await listen(client)
        await stream.parts(lambda seen: "\ud83d" in seen.get("head", ""))
        assert (await client.get("/")).status == 200

    served(run, StandIn(status(run, version="v\ud83d")), visit)


def test_a_grid_is_served_and_nothing_beside_it(run: Path) -> None:
    async def visit(client: Client) -> None:
        grid = await client.get("/grid/2.png")
        assert (grid.status, grid.content_type) == (200, "image/png")
        for name in ("3.png", "..%2f..%2fconfig.png", "config.yaml", "2.png/..%2f..%2fconfig.yaml", "0x2.png"):
            assert (await client.get(f"/grid/{name}")).status == 404

    served(run, StandIn(None), visit)


def test_an_update_that_is_written_while_somebody_looks_is_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "grows", updates=2, every=1, logged=0, finished=False)

    async def visit(client: Client) -> None:
        stream = await listen(client)
        first = await stream.parts(lambda seen: seen.keys() == set(SLOTS))
        log_update(folder, 3, 0.25)
        log_groups(folder, 3, size=3)
        later = await stream.parts(lambda seen: {"curves", "groups"} <= seen.keys() and "Update 3" in seen["groups"])
        assert first["curves"] != later["curves"]

    served(folder, StandIn(None), visit)
