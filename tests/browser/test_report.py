"""The report in a real browser: nothing is loaded, nothing fails, and it can be read."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.report.page import write_report
from tests.browser.chromium import CHROMIUM, chromium
from tests.unit.deploy.report.folders import GROUPS, G, write_run

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests want playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")

SCREENSHOTS = os.environ.get("REPORT_SCREENSHOTS")
"""A folder to write screenshots to."""
LOADED_MS = 5000
BYTES_AT_MOST = 4_000_000


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    runs = [write_run(folder / f"rdp-{seed}", seed=seed, updates=48) for seed in (1, 2)]
    runs.append(
        write_run(
            folder / "hacked",
            updates=48,
            heldout=lambda update: 0.6 - 0.004 * abs(update - 24),
            overrides=("rollout.exploration=global",),
        )
    )
    out = folder / "report.html"
    write_report(runs, out)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as browser:
        yield browser


def opened(browser, file: Path, **options):
    """Open the page; return it with its requests and errors."""
    page = browser.new_context(viewport={"width": 1400, "height": 1000}, **options).new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: message.type in ("error", "warning") and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    return page, requests, errors


def brightness(page) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_makes_no_network_request_and_raises_no_error(browser, page_file: Path, scheme: str) -> None:
    page, requests, errors = opened(browser, page_file, color_scheme=scheme)
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert errors == []
    assert page_file.stat().st_size < BYTES_AT_MOST
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert loaded < LOADED_MS
    assert brightness(page) > 200 if scheme == "light" else brightness(page) < 60
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{scheme}.png")
    page.context.close()


def test_headings_curves_and_images_are_there_and_seen(browser, page_file: Path) -> None:
    page, _, _ = opened(browser, page_file)
    headings = page.get_by_role("heading", level=2).all_inner_texts()
    assert headings == [
        "Summary",
        "Reward-hacking alarm",
        "Training curves",
        "Distributions over training groups",
        "Held-out figures",
        "Best and worst groups",
        "Time by phase",
        "Configuration",
    ]
    playwright.expect(page.get_by_text("From update 24 on").first).to_be_visible()
    assert page.locator("#curves svg").count() >= 8
    widths = page.evaluate("[...document.querySelectorAll('#curves svg')].map((svg) => svg.getBBox().width)")
    assert all(width > 100 for width in widths)
    for summary in page.locator("details.gallery > summary").all():
        if summary.locator("..").get_attribute("open") is None:
            summary.click()
    images = page.locator("#groups img")
    assert images.count() == 3 * 2 * GROUPS * (3 + 2 * G)
    broken = page.evaluate("[...document.images].filter((image) => !image.complete || !image.naturalWidth).length")
    assert broken == 0
    page.context.close()


def test_pointing_at_a_chart_reads_it(browser, page_file: Path) -> None:
    page, _, errors = opened(browser, page_file)
    drawing = page.get_by_role("img", name="Task reward, mean over updates")
    drawing.hover()
    reading = page.locator("#reading")
    playwright.expect(reading).to_be_visible()
    assert "rdp-* (2 seeds)" in reading.inner_text()
    assert "hacked" in reading.inner_text()
    page.get_by_role("heading", level=1).hover()
    playwright.expect(reading).to_be_hidden()
    assert errors == []
    page.context.close()


@pytest.mark.parametrize("width", [360, 820, 1700])
def test_no_width_makes_the_page_scroll_sideways(browser, page_file: Path, width: int) -> None:
    page, _, _ = opened(browser, page_file)
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()


_CELLS = """(table) => [...table.querySelectorAll("tbody th, tbody td")].map((cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const box = range.getBoundingClientRect(), frame = cell.getBoundingClientRect();
  const named = getComputedStyle(cell, "::before"), size = parseFloat(getComputedStyle(cell).fontSize);
  return {
    text: cell.innerText.trim(), row: cell.closest("tr").innerText, spans: cell.colSpan, head: cell.tagName === "TH",
    left: box.left, right: box.right, frameRight: frame.right, top: frame.top,
    size, column: named.content.replaceAll('"', ""), nameSize: parseFloat(named.fontSize),
  };
})"""


def test_each_table_is_read_on_a_telephone_without_scrolling_sideways(browser, page_file: Path) -> None:
    page, _, errors = on_telephone(browser, page_file)
    tables = page.locator("main table").all()
    assert len(tables) == 6
    for table in tables:
        heads = table.evaluate("(table) => [...table.tHead.rows[0].cells].map((head) => head.textContent)")
        wrapper = table.locator("..")
        assert wrapper.evaluate("(it) => it.scrollWidth <= it.clientWidth"), heads
        cells = [cell for cell in table.evaluate(_CELLS) if cell["text"]]
        assert cells
        for cell in cells:
            assert 0 <= cell["left"] < cell["right"] <= min(360, cell["frameRight"] + 0.5), cell
            assert cell["size"] >= 12
        # What a number means stands over it: its column, and the head of its row.
        numbers = [cell for cell in cells if not cell["head"] and cell["spans"] == 1]
        assert numbers
        assert all(cell["nameSize"] >= 11 for cell in numbers)
        assert {cell["column"] for cell in numbers} == set(heads[-len({cell["column"] for cell in numbers}) :])
        assert heads[0] not in {cell["column"] for cell in numbers}
    page.context.close()
    assert errors == []


def test_on_a_telephone_a_number_stands_under_the_column_it_is_in_on_a_desk(browser, page_file: Path) -> None:
    wide, _, _ = opened(browser, page_file)
    narrow, _, _ = on_telephone(browser, page_file)
    for page in (wide, narrow):
        # The table keeps its roles, as blocks have none of their own.
        assert page.get_by_role("region", name="Before and after").get_by_role("row").count() > 4
    by_place = """() => [...document.querySelectorAll("main table")].flatMap((table) => {
      const boxes = [...table.tHead.rows[0].cells].map((head) => [head.textContent, head.getBoundingClientRect()]);
      return [...table.querySelectorAll("tbody td:not([colspan])")].map((cell) => {
        const box = cell.getBoundingClientRect(), middle = (box.left + box.right) / 2;
        return boxes.find(([, head]) => head.left <= middle && middle <= head.right)[0];
      });
    })"""
    names = """() => [...document.querySelectorAll("main tbody td:not([colspan])")]
      .map((cell) => getComputedStyle(cell, "::before").content)"""
    assert [name.strip('"') for name in narrow.evaluate(names)] == wide.evaluate(by_place)
    assert set(wide.evaluate(names)) == {"none"}
    wide.context.close()
    narrow.context.close()


def test_without_scripts_a_table_is_scrolled_under_its_first_column(browser, page_file: Path) -> None:
    page, _, _ = on_telephone(browser, page_file, java_script_enabled=False)
    table = page.get_by_role("region", name="CompBench")
    method = table.get_by_role("rowheader", name="FLUX.1-Kontext-dev")
    before = method.bounding_box()
    table.evaluate("(it) => { it.scrollLeft = 200; }")
    assert table.evaluate("(it) => it.scrollLeft") > 0
    assert abs(method.bounding_box()["x"] - before["x"]) < 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.context.close()


def on_telephone(browser, file: Path, **options):
    page, requests, errors = opened(browser, file, has_touch=True, is_mobile=True, device_scale_factor=2, **options)
    page.set_viewport_size({"width": 360, "height": 740})
    if SCREENSHOTS:
        for number, table in enumerate(page.locator("main .scroll").all()):
            table.screenshot(path=f"{SCREENSHOTS}/telephone-{number}{'' if len(options) == 0 else '-plain'}.png")
    return page, requests, errors


def test_the_contents_lead_to_their_sections(browser, page_file: Path) -> None:
    page, _, _ = opened(browser, page_file, reduced_motion="reduce")
    page.get_by_role("navigation").get_by_role("link", name="Held-out figures").click()
    playwright.expect(page.get_by_role("heading", name="Held-out figures", exact=True)).to_be_in_viewport()
    page.context.close()


def test_text_is_readable_against_its_ground_in_light_and_dark(browser, page_file: Path) -> None:
    for scheme in ("light", "dark"):
        page, _, _ = opened(browser, page_file, color_scheme=scheme)
        contrast = page.evaluate(_CONTRAST)
        assert {name: ratio for name, ratio in contrast.items() if ratio < 4.5} == {}
        page.context.close()


_CONTRAST = """() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
  };
  const found = {};
  const texts = "p, h1, h2, h3, h4, th, td, dt, dd, a, summary, li, .badge, figcaption";
  for (const element of document.querySelectorAll(texts)) {
    if (element.closest(".skip, .unseen") || !element.innerText || !element.innerText.trim()) continue;
    const [one, other] = [getComputedStyle(element).color, ground(element)].map(light).sort((a, b) => b - a);
    const name = `${element.tagName}.${element.className}`;
    found[name] = Math.min(found[name] ?? 21, (one + 0.05) / (other + 0.05));
  }
  return found;
}"""
