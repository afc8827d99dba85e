"""A study in a real browser: clicked and typed through, its server killed in the middle."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.study.blinding import Blinding
from deploy.study.manifest import VOTES, Manifest
from deploy.study.results import Results
from tests.browser.chromium import CHROMIUM, chromium
from tests.unit.deploy.study.benches import betrays, gather, headers_of, write_bench

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests want playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")

TASKS = 8
SCREENSHOTS = os.environ.get("STUDY_SCREENSHOTS")
"""A folder to write screenshots to; docs/study for those of the documentation."""
START_S = 60


@contextmanager
def serving(folder: Path, given: list[str], port: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "deploy.cli", "study", "serve", "--tasks", str(folder / "bench")]
    command += [part for pair in given for part in ("--edits", pair)]
    command += ["--out", str(folder / "study"), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert server.stdout is not None
        said = ""
        for line in server.stdout:
            said += line
            if "The study is at" in line:
                break
        assert f"http://127.0.0.1:{port}/" in said, said
        yield server
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Visitor:
    """A participant with a browser, who remembers all that came over the wire."""

    def __init__(self, page) -> None:
        self.page = page
        self.bodies: list[bytes] = []
        self.errors: list[str] = []
        page.on("response", self._heard)
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _heard(self, response) -> None:
        # Bodies are read later: a handler of the synchronous interface cannot wait for them.
        self.bodies.append(response.url.encode() + headers_of(response.headers))

    def ready(self, number: int) -> None:
        playwright.expect(self.page.locator("#count")).to_have_text(f"Trial {number} of {TASKS}")
        playwright.expect(self.page.locator("#trial")).to_have_attribute("aria-busy", "false")

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def choose(self, place: int) -> None:
        self.page.get_by_role("button", name=f"Choose edit {place}").click()


@pytest.fixture
def browser() -> Iterator[object]:
    with chromium() as browser:
        yield browser


def counted(folder: Path) -> int:
    path = folder / "study" / VOTES
    return len(path.read_text().splitlines()) if path.exists() else 0


ANSWERS: tuple[int | None, ...] = (2, 1, None, 3, 1, 2, None, 1)
"""Place on the page, or None for "not sure", in the order of the trials."""


@pytest.mark.timeout(240)
def test_a_study_is_answered_by_mouse_and_keys_and_loses_no_vote_to_a_killed_server(browser, tmp_path: Path) -> None:
    given, port = write_bench(tmp_path / "bench", TASKS), free_port()
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    visitor, seen = Visitor(context.new_page()), list[bytes]()
    context.route(re.compile(".*"), lambda route: _kept(route, seen))
    with serving(tmp_path, given, port) as server:
        begin(visitor, port)
        answer_four(visitor, tmp_path)
        server.send_signal(signal.SIGKILL)
        server.wait()
    offline = vote_to_nobody(visitor, tmp_path)
    with serving(tmp_path, given, port):
        go_on_and_change_a_mind(visitor)
        answer_the_rest_by_keys(visitor)

    assert visitor.errors[offline:] == []
    assert len(seen) > 5 * TASKS
    assert [names for body in (*seen, *visitor.bodies) if (names := betrays(body))] == []
    assert {urls.split(b"/")[2] for urls in visitor.bodies} == {f"127.0.0.1:{port}".encode()}
    every_answer_is_counted_once(tmp_path, given)


def begin(visitor: "Visitor", port: int) -> None:
    visitor.page.goto(f"http://127.0.0.1:{port}/")
    visitor.page.get_by_role("textbox").fill("Ada")
    visitor.press("Enter")
    visitor.ready(1)
    assert betrays(visitor.page.content().encode()) == []


def answer_four(visitor: "Visitor", folder: Path) -> None:
    page = visitor.page
    visitor.choose(2)
    visitor.ready(2)
    visitor.press("1")
    visitor.ready(3)
    visitor.press("Space")
    visitor.ready(4)
    # Seen, enlarged and compared before it is answered; nothing of that is a vote.
    visitor.press("m")
    playwright.expect(page.get_by_alt_text("dark outside the region")).to_be_visible()
    visitor.press("m")
    page.get_by_role("button", name="Enlarge edit 3").click()
    visitor.press("ArrowRight")
    playwright.expect(page.locator("#large-name")).to_have_text("Original")
    visitor.press("2")
    visitor.press("Escape")
    assert counted(folder) == 3
    # A double click answers once, and not the trial that comes after.
    page.get_by_role("button", name="Choose edit 3").dblclick()
    visitor.ready(5)
    assert counted(folder) == 4


def vote_to_nobody(visitor: "Visitor", folder: Path) -> int:
    """Vote while there is no server, and return the number of errors that the browser has by then."""
    visitor.press("1")
    playwright.expect(visitor.page.get_by_role("alert")).to_contain_text("does not answer")
    assert counted(folder) == 4
    assert all("ERR_CONNECTION" in error or "ERR_FAILED" in error for error in visitor.errors)
    return len(visitor.errors)


def go_on_and_change_a_mind(visitor: "Visitor") -> None:
    visitor.page.get_by_role("alert").get_by_role("button", name="Try again").click()
    visitor.ready(6)
    visitor.page.reload()
    visitor.ready(6)
    # Back, and a change of mind that is taken back as well.
    visitor.press("ArrowLeft")
    visitor.ready(5)
    playwright.expect(visitor.page.locator(".mine kbd")).to_have_text("1")
    visitor.choose(3)
    visitor.ready(6)
    visitor.press("ArrowLeft")
    visitor.ready(5)
    visitor.press("1")
    visitor.ready(6)


def answer_the_rest_by_keys(visitor: "Visitor") -> None:
    page = visitor.page
    page.get_by_role("button", name="Choose edit 2").focus()
    visitor.press("Enter")
    visitor.ready(7)
    visitor.press("0")
    visitor.ready(8)
    page.get_by_role("button", name="Choose edit 1").focus()
    visitor.press("Space")
    playwright.expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
    playwright.expect(page.locator("#all")).to_have_text(str(TASKS))


def every_answer_is_counted_once(folder: Path, given) -> None:
    trials = Blinding(Manifest.read(folder / "study"), gather(folder / "bench", given)).trials("ada")
    clicked = Counter(
        None if place is None else trial.shown[place - 1] for trial, place in zip(trials, ANSWERS, strict=True)
    )
    results = Results.read(folder / "study")
    assert {share.answer: share.won for share in results.shares if share.won} == dict(clicked)
    assert results.trials == TASKS
    lines = [json.loads(line) for line in (folder / "study" / VOTES).read_text().splitlines()]
    assert len(lines) == TASKS + 2


@pytest.mark.timeout(120)
def test_the_page_can_be_read_in_light_dark_and_on_a_telephone(browser, tmp_path: Path) -> None:
    given, port = write_bench(tmp_path / "bench", TASKS), free_port()
    sizes = {"light": (1040, 480), "dark": (1040, 480), "small": (390, 844)}
    with serving(tmp_path, given, port):
        for name, (width, height) in sizes.items():
            scheme = "light" if name == "light" else "dark"
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            visitor = Visitor(page)
            page.goto(f"http://127.0.0.1:{port}/")
            playwright.expect(page.get_by_role("textbox")).to_be_focused()
            page.get_by_role("textbox").fill(name)
            visitor.press("Enter")
            visitor.ready(1)
            visitor.press("2")
            visitor.ready(2)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            if name != "small":
                # All that is to be compared is in sight at once.
                assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
            assert page.evaluate("[...document.images].every((image) => image.alt !== '' || image.closest('dialog'))")
            if SCREENSHOTS:
                page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")
            assert visitor.errors == []
            page.close()


def _kept(route, seen: list[bytes]) -> None:
    try:
        answer = route.fetch(max_redirects=0)
    except playwright.Error:
        route.abort()
        return
    seen.append(answer.url.encode() + headers_of(answer.headers) + answer.body())
    route.fulfill(response=answer)
