"""A study on a telephone: with taps alone, without a key or a pointer that hovers."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.study.blinding import Blinding
from deploy.study.manifest import VOTES, Manifest
from tests.browser.chromium import CHROMIUM, chromium
from tests.browser.test_study import TASKS, Visitor, counted, free_port, serving
from tests.unit.deploy.study.benches import gather, write_bench

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests want playwright")
pytestmark = [pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"), pytest.mark.timeout(120)]

SCREENSHOTS = os.environ.get("STUDY_SCREENSHOTS")
TARGET = 44
"""Pixels that a finger needs on either side, by the usual guidelines."""
SIZES = {"upright": (360, 740), "across": (740, 360), "small": (320, 568), "tablet": (820, 1180)}
_TARGETS = """() => [...document.querySelectorAll("button, input")].filter((it) => it.checkVisibility()).map((it) => {
  const box = it.getBoundingClientRect();
  return [it.getAttribute("aria-label") ?? it.innerText, box.left, box.top, box.width, box.height];
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as browser:
        yield browser


def on_telephone(browser, size: str) -> Visitor:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    return Visitor(context.new_page())


def choose(visitor: Visitor, place: int) -> None:
    visitor.page.get_by_role("button", name=f"Choose edit {place}").tap()


def fits_fingers(page) -> None:
    """Assert that every control is large enough and apart from the others, and that nothing is wider than the page."""
    targets = page.evaluate(_TARGETS)
    assert targets
    for name, left, top, width, height in targets:
        assert min(width, height) >= TARGET, name
        assert left >= 0
        assert left + width <= page.viewport_size["width"], name
        for other, *at in targets:
            apart = at[0] >= left + width or left >= at[0] + at[2] or at[1] >= top + height or top >= at[1] + at[3]
            assert other == name or apart, (name, other)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    shown = page.evaluate(
        "[...document.images].filter((it) => it.checkVisibility()).map((it) => it.width / innerWidth)"
    )
    assert all(0.15 < width <= 1 for width in shown)
    assert page.evaluate("[...document.querySelectorAll('button kbd')].every((key) => !key.checkVisibility())")


@dataclass(frozen=True)
class Served:
    """A study that is served."""

    folder: Path
    given: list[str]
    url: str

    def arrive(self, browser, size: str, name: str) -> Visitor:
        """Begin the study on a telephone, as somebody of a name of their own."""
        visitor = on_telephone(browser, size)
        page = visitor.page
        page.goto(self.url)
        playwright.expect(page.get_by_role("heading", name="Which edit do you prefer?")).to_be_visible()
        playwright.expect(page.get_by_role("textbox")).not_to_be_focused()
        fits_fingers(page)
        page.get_by_role("textbox").tap()
        page.get_by_role("textbox").fill(name)
        page.get_by_role("button", name="Start").tap()
        visitor.ready(1)
        return visitor


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("study")
    given, port = write_bench(folder / "bench", TASKS), free_port()
    with serving(folder, given, port):
        yield Served(folder, given, f"http://127.0.0.1:{port}/")


def test_a_study_is_answered_by_taps_alone(browser, study: Served) -> None:
    answers: list[int | None] = [3, 1, None, 2, 3, 1, 2, 3]
    visitor = study.arrive(browser, "upright", "Ada")
    page = visitor.page
    for number, place in enumerate(answers, 1):
        visitor.ready(number)
        assert page.evaluate("scrollY") == 0, "the instruction is out of sight"
        if place is None:
            page.get_by_role("button", name="Not sure").tap()
        else:
            choose(visitor, place)
    playwright.expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    fits_fingers(page)
    page.get_by_role("button", name="Back to the last").tap()
    visitor.ready(TASKS)
    fits_fingers(page)
    choose(visitor, 1)
    playwright.expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert visitor.errors == []
    lines = [json.loads(line) for line in (study.folder / "study" / VOTES).read_text().splitlines()]
    voted = {line["task_id"]: line["choice"] for line in lines if line["participant"] == "ada"}
    trials = Blinding(Manifest.read(study.folder / "study"), gather(study.folder / "bench", study.given)).trials("ada")
    assert voted == {
        trial.example.task_id: None if place is None else trial.shown[place - 1]
        for trial, place in zip(trials, [*answers[:-1], 1], strict=True)
    }


@pytest.mark.parametrize("size", SIZES)
def test_every_control_fits_a_finger_and_looking_closer_is_no_vote(browser, study: Served, size: str) -> None:
    before = counted(study.folder)
    visitor = study.arrive(browser, size, f"who looks {size}")
    fits_fingers(visitor.page)
    if SCREENSHOTS:
        visitor.page.screenshot(path=Path(SCREENSHOTS) / f"touch-{size}.png")
    look_closer(visitor)
    assert counted(study.folder) == before
    assert visitor.errors == []


def look_closer(visitor: Visitor) -> None:
    """Enlarge, compare in place, show the region; nothing of that is a vote."""
    page = visitor.page
    page.get_by_role("button", name="Enlarge edit 3").tap()
    playwright.expect(page.locator("#large-name")).to_have_text("Edit 3")
    picture = page.locator("#large-picture").bounding_box()
    assert picture["y"] >= 0
    assert picture["y"] + picture["height"] <= page.viewport_size["height"]
    for name in ("The picture after it", "The picture before it", "Close"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert min(box["width"], box["height"]) >= TARGET
    page.get_by_role("button", name="The picture after it").tap()
    playwright.expect(page.locator("#large-name")).to_have_text("Original")
    page.get_by_role("button", name="The picture before it").tap()
    playwright.expect(page.locator("#large-name")).to_have_text("Edit 3")
    page.get_by_role("button", name="Close").tap()
    page.get_by_role("button", name="Region").tap()
    playwright.expect(page.get_by_alt_text("dark outside the region")).to_be_visible()
    page.get_by_role("button", name="Hide region").tap()


@pytest.mark.parametrize("size", ["upright", "tablet"])
def test_everything_to_be_compared_is_in_sight_at_once(browser, study: Served, size: str) -> None:
    page = study.arrive(browser, size, f"Grace {size}").page
    for image in page.locator("#trial img").all():
        playwright.expect(image).to_be_in_viewport(ratio=1)
    playwright.expect(page.get_by_text("Tap the edit that you prefer")).to_be_in_viewport()
    playwright.expect(page.get_by_text("Keys 1 to 3")).to_be_hidden()


def test_a_double_tap_answers_once(browser, study: Served) -> None:
    before = counted(study.folder)
    visitor = study.arrive(browser, "upright", "Mary")
    box = visitor.page.get_by_role("button", name="Choose edit 2").bounding_box()
    for _ in range(2):
        visitor.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visitor.ready(2)
    assert counted(study.folder) == before + 1
