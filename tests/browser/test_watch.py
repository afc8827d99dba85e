"""A run's live page in a real browser: three states in light, dark and on a telephone; scaled and stopped; refused."""

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from deploy.records.folder import SUMMARY, RunFolder
from deploy.watch import keeper
from deploy.watch.server import make_app
from tests.browser.chromium import CHROMIUM, chromium
from tests.browser.test_report import _CONTRAST, brightness
from tests.browser.test_study import free_port
from tests.unit.deploy.report.folders import rising, write_run
from tests.unit.deploy.watch.watched import TOKEN, StandIn, log_groups, log_update, status

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests want playwright")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
    pytest.mark.timeout(240),
]

SCREENSHOTS = os.environ.get("WATCH_SCREENSHOTS")
"""A folder to write screenshots to; docs/watch for those of the documentation."""
DESK, TELEPHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
PLANNED = ("loop.updates=40",)
STATES = ("running", "waiting", "finished")
NASTY = '<img src=x onerror="document.title = 1"> <script>document.title = 2</script> {{ 7 * 7 }}'


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(keeper, "_DRAWING_SHARE", 1.0)


def running(root: Path) -> tuple[Path, StandIn]:
    folder = write_run(root / "kontext-rdp", updates=24, logged=0, finished=False, overrides=PLANNED)
    log_groups(folder, 24)
    return folder, StandIn(status(folder))


def waiting(root: Path) -> tuple[Path, StandIn]:
    """A run whose judge's server does not come up."""
    folder = write_run(root / "kontext-rdp", updates=3, every=3, logged=0, finished=False, overrides=PLANNED)
    log_groups(folder, 3, failed=(1, 4))
    said = status(folder, update=3, version="v3:5e6f7a8b", groups={"learned_from": 18, "under_way": 6})
    said["pools"]["reward-ground_truth"] |= {"workers": 0, "starting": 1, "lost": 2, "queued": 6}
    said["waits"] = [
        {"who": "the learner", "what": "the groups of update 4", "seconds": 214.0, "deadline_s": 3600.0},
        {"who": "reward-ground_truth-2", "what": "its server to answer", "seconds": 188.0, "deadline_s": 600.0},
        {"who": "reward-ground_truth", "what": "a worker for 6 groups", "seconds": 187.0, "deadline_s": None},
    ]
    return folder, StandIn(said)


def finished(root: Path) -> tuple[Path, StandIn]:
    folder = write_run(root / "kontext-rdp", updates=40, every=8, logged=0)
    log_groups(folder, 40)
    gain = {"before": rising(0), "after": rising(40)}
    (folder / SUMMARY).write_text(json.dumps({"updates": 40, "training_minutes": 2.7, "heldout": gain}))
    return folder, StandIn(None, "nobody drives it now")


MAKERS: dict[str, Callable[[Path], tuple[Path, StandIn]]] = {
    "running": running,
    "waiting": waiting,
    "finished": finished,
}


@contextmanager
def serving(folder: Path, driver: StandIn, port: int) -> Iterator[str]:
    """Serve a page from a thread of this process; yields its link."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(make_app(RunFolder(folder), driver, TOKEN), shutdown_timeout=3)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(20)
        yield f"http://127.0.0.1:{port}/?token={TOKEN}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


class Visitor:
    """Somebody with a browser, who remembers what it asked for and what went wrong in it."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.page = browser.new_context(**({"viewport": DESK} | options)).new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, link: str) -> None:
        self.page.goto(link)
        playwright.expect(self.page.locator("#curves svg").first).to_be_visible(timeout=60_000)
        playwright.expect(self.page.locator("#link")).to_have_text("live")
        playwright.expect(self.page.locator("#groups article").first).to_be_visible()

    def close(self) -> None:
        self.page.context.close()


def pool(page: Any, role: str) -> Any:
    return page.get_by_role("list", name="Pools").get_by_role("listitem").filter(has_text=role)


@pytest.mark.parametrize("state", STATES)
def test_a_run_is_read_in_light_dark_and_on_a_telephone(browser: Any, tmp_path: Path, state: str) -> None:
    folder, driver = MAKERS[state](tmp_path)
    looks = {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "phone": {"color_scheme": "dark", "viewport": TELEPHONE, "has_touch": True, "is_mobile": True},
    }
    port = free_port()
    with serving(folder, driver, port) as link:
        for look, options in looks.items():
            visitor = Visitor(browser, device_scale_factor=2 if look == "phone" else 1, **options)
            visitor.open(link)
            page = visitor.page
            playwright.expect(page.locator(".badge.state")).to_have_text(state)
            assert TOKEN not in page.url
            assert page.locator("#orders").is_visible() == (state != "finished")
            assert pool(page, "reward-ground_truth").count() == (0 if state == "finished" else 1)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.locator("#curves svg").count() >= 5
            assert page.evaluate(
                "[...document.images].every((it) => it.alt && (it.naturalWidth || it.loading === 'lazy'))"
            )
            assert brightness(page) > 200 if look == "light" else brightness(page) < 60
            contrast = page.evaluate(_CONTRAST)
            assert {name: ratio for name, ratio in contrast.items() if ratio < 4.5} == {}
            assert {url.split("/")[2] for url in visitor.requests if not url.startswith("data:")} == {
                f"127.0.0.1:{port}"
            }
            if SCREENSHOTS:
                page.screenshot(path=Path(SCREENSHOTS) / f"{state}-{look}.png")
                if (state, look) == ("running", "light"):
                    page.locator("#groups article").first.screenshot(path=Path(SCREENSHOTS) / "group.png")
            assert visitor.errors == []
            visitor.close()


def test_a_run_is_scaled_and_stopped_through_the_page(browser: Any, tmp_path: Path) -> None:
    folder, driver = running(tmp_path)
    with serving(folder, driver, free_port()) as link:
        visitor = Visitor(browser)
        visitor.open(link)
        page, said = visitor.page, visitor.page.locator("#said")
        page.get_by_role("combobox", name="Pool").select_option("rollout")
        playwright.expect(page.get_by_role("spinbutton", name="Workers")).to_have_value("2")
        page.get_by_role("spinbutton", name="Workers").fill("4")
        page.get_by_role("button", name="Scale").click()
        playwright.expect(said).to_have_text("rollout: 2 -> 4 workers")
        playwright.expect(pool(page, "rollout").first).to_contain_text("4 workers")
        # A size that is none does not leave the page.
        page.get_by_role("spinbutton", name="Workers").fill("0")
        page.get_by_role("button", name="Scale").click()
        assert driver.told == [("scale", "rollout", 4)]

        page.get_by_role("button", name="Stop the run").click()
        playwright.expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_role("button", name="Let it run").click()
        playwright.expect(page.get_by_role("dialog")).to_be_hidden()
        assert driver.told == [("scale", "rollout", 4)]
        page.get_by_role("button", name="Stop the run").click()
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / "stop.png")
        page.get_by_role("button", name="Stop it").click()
        playwright.expect(said).to_contain_text("a checkpoint is written")
        playwright.expect(page.locator(".badge.state")).to_have_text("stopping")
        assert driver.told == [("scale", "rollout", 4), ("stop",)]

        driver.answer, driver.silence = None, "nobody drives it now"
        playwright.expect(page.locator(".badge.state")).to_have_text("not running")
        playwright.expect(page.locator("#orders")).to_be_hidden()
        assert visitor.errors == []
        visitor.close()


def test_without_the_token_the_browser_is_refused(browser: Any, tmp_path: Path) -> None:
    folder, driver = running(tmp_path)
    with serving(folder, driver, free_port()) as link:
        visitor = Visitor(browser)
        for address in (link.partition("?")[0], link[:-1], f"{link.partition('?')[0]}events"):
            answer = visitor.page.goto(address)
            assert answer.status == 403
            assert "kontext-rdp" not in visitor.page.content()
        visitor.close()
    assert driver.told == []


def test_another_site_orders_nothing_in_the_browser_of_somebody_who_watches(browser: Any, tmp_path: Path) -> None:
    folder, driver = running(tmp_path)
    port = free_port()
    with serving(folder, driver, port) as link:
        visitor = Visitor(browser)
        visitor.open(link)
        foreign = visitor.page.context.new_page()
        foreign.goto("about:blank")
        sent = """async ([url, type]) => {
          const how = { method: "POST", credentials: "include", headers: { "Content-Type": type }, body: "{}" };
          try { await fetch(url, { mode: type === "text/plain" ? "no-cors" : "cors", ...how }); }
          catch (error) { return String(error); }
        }"""
        for kind in ("text/plain", "application/json"):
            foreign.evaluate(sent, [f"http://127.0.0.1:{port}/stop", kind])
        action = f"http://127.0.0.1:{port}/stop"
        foreign.set_content(f'<form method="post" enctype="text/plain" action="{action}"><input name="a"></form>')
        with foreign.expect_response(re.compile("/stop")) as answer:
            foreign.evaluate("document.forms[0].submit()")
        assert answer.value.status == 403
        visitor.close()
    assert driver.told == []


def test_the_page_grows_with_the_run_and_comes_back_after_its_server(browser: Any, tmp_path: Path) -> None:
    folder, driver = running(tmp_path)
    port = free_port()
    visitor = Visitor(browser)
    page = visitor.page
    with serving(folder, driver, port) as link:
        visitor.open(link)
        loads = len([url for url in visitor.requests if url.endswith("/")])
        page.locator("#verdicts-2 summary").click()
        log_update(folder, 25, 0.9)
        log_groups(folder, 25)
        playwright.expect(page.get_by_text("Update 25: 4 of")).to_be_visible(timeout=30_000)
        playwright.expect(page.locator(".tiles")).to_contain_text("25 of 40")
        assert "25/40 running" in page.title()
        assert page.locator("#verdicts-2").get_attribute("open") is not None, "what was opened stays open"
        drawing = page.get_by_role("img", name="Task reward, mean over updates")
        drawing.hover()
        playwright.expect(page.locator("#reading")).to_contain_text("kontext-rdp")
        page.get_by_role("heading", level=1).hover()
        playwright.expect(page.locator("#reading")).to_be_hidden()
    playwright.expect(page.locator("#link")).to_contain_text("no word from this page's server")
    log_update(folder, 26, 0.9)
    with serving(folder, driver, port):
        playwright.expect(page.locator("#link")).to_have_text("live", timeout=30_000)
        playwright.expect(page.locator(".tiles")).to_contain_text("26 of 40", timeout=30_000)
        assert len([url for url in visitor.requests if url.endswith("/")]) == loads, "it was not loaded again"
    assert all("ERR_" in error for error in visitor.errors), visitor.errors
    visitor.close()


def test_what_data_and_judges_say_runs_nothing(browser: Any, tmp_path: Path) -> None:
    folder, driver = running(tmp_path)
    log_groups(folder, 24, said=[NASTY], failed=(2,))
    assert driver.answer is not None
    driver.answer["waits"] = [{"who": NASTY, "what": NASTY, "seconds": 400.0, "deadline_s": None}]
    driver.answer["pools"][NASTY] = driver.answer["pools"]["rollout"]
    with serving(folder, driver, free_port()) as link:
        visitor = Visitor(browser)
        visitor.open(link)
        page = visitor.page
        playwright.expect(page.locator(".said")).to_contain_text(NASTY)
        playwright.expect(page.locator("#groups .reason").first).to_have_text(NASTY)
        page.get_by_role("combobox", name="Pool").select_option(NASTY)
        # And were there a hole in the escaping, the policy would let nothing run.
        page.evaluate(
            "document.querySelector('#said').innerHTML = '<img src=\"data:,\" onerror=\"document.title = 3\">'"
        )
        page.wait_for_timeout(300)
        assert page.title().endswith("kontext-rdp")
        assert [error for error in visitor.errors if "Content Security Policy" not in error] == []
        visitor.close()


def test_a_falling_held_out_reward_is_on_the_page_as_an_alarm(browser: Any, tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "hacked", updates=48, logged=0, finished=False, heldout=lambda update: 0.6 - 0.004 * abs(update - 24)
    )
    log_groups(folder, 48)
    with serving(folder, StandIn(status(folder, update=48, updates=60, version="v48:0a1b2c3d")), free_port()) as link:
        visitor = Visitor(browser)
        visitor.open(link)
        playwright.expect(visitor.page.locator("#alarm .box.alarm")).to_contain_text("From update 24 on")
        if SCREENSHOTS:
            visitor.page.screenshot(path=Path(SCREENSHOTS) / "alarm.png")
        visitor.close()
