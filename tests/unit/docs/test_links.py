"""Every link of every committed Markdown page leads somewhere in a plain checkout, with nothing built."""

import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest

from benchmarks.quote import ROOT

PAGES = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//")


class Rendered(HTMLParser):
    """What a page links to, and what it can be linked at.

    Attributes:
        links: targets of links and images.
        anchors: as GitHub has them, of headings and of elements with an id.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self._heading: list[str] | None = None
        self.feed(markdown.markdown(text, extensions=["tables", "fenced_code", "attr_list", "md_in_html"]))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.links += [target for name in ("href", "src") if (target := given.get(name))]
        self.anchors |= {name for name in (given.get("id"), given.get("name")) if name}
        if re.fullmatch("h[1-6]", tag):
            self._heading = []

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            self._heading.append(data)

    def handle_endtag(self, tag: str) -> None:
        if re.fullmatch("h[1-6]", tag) and self._heading is not None:
            words = re.sub(r"[^\w\- ]", "", "".join(self._heading).strip().lower())
            self.anchors.add(words.replace(" ", "-"))
            self._heading = None


def dead(page: Path) -> Iterator[str]:
    for link in Rendered(page.read_text()).links:
        if _SCHEME.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if link.startswith("/") or not target.exists() or not target.resolve().is_relative_to(page_root(page)):
            yield link
        elif anchor and target.suffix == ".md" and anchor not in Rendered(target.read_text()).anchors:
            yield f"{link} (no such heading)"


def page_root(page: Path) -> Path:
    return ROOT if page.is_relative_to(ROOT) else page.parent


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere_in_the_checkout(page: str) -> None:
    assert list(dead(ROOT / page)) == []


def test_what_a_link_leads_to_is_committed() -> None:
    tracked = set(
        subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    )
    folders = {str(parent) for name in tracked for parent in Path(name).parents}
    for page in PAGES:
        for link in Rendered((ROOT / page).read_text()).links:
            path = link.partition("#")[0]
            if path and not _SCHEME.match(link):
                found = str(((ROOT / page).parent / path).resolve().relative_to(ROOT.resolve()))
                assert found in tracked | folders, f"{page}: {link}"


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("[a](gone.md)", "gone.md"),
        ("![a](gone.png)", "gone.png"),
        ("[a][b]\n\n[b]: folder/gone.md 'title'", "folder/gone.md"),
        ('<a href="gone.html">a</a>', "gone.html"),
        ("| a |\n|---|\n| [b](reference/gone.md) |", "reference/gone.md"),
        ("[a](page.md#gone)", "page.md#gone (no such heading)"),
        ("[a](#gone)", "#gone (no such heading)"),
        ("[a](/page.md)", "/page.md"),
        ("[a](../elsewhere)", "../elsewhere"),
    ],
)
def test_a_dead_link_is_noticed(text: str, link: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n[good](page.md#here) [far](https://example.org) `[code](no.md)`\n\n{text}\n")
    assert list(dead(page)) == [link]


def test_the_pages_that_a_build_writes_are_in_the_checkout_and_say_where_else_to_look() -> None:
    for name, way in (("config", "rc-grpo config"), ("cli", "rc-grpo --help")):
        page = (ROOT / "docs/reference" / f"{name}.md").read_text()
        assert way in page
        assert "make docs" in page
