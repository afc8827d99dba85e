import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.records.reading import read_runs
from deploy.report.measures import lower_is_better, sections, title
from deploy.report.page import render, write_report

from .folders import GROUPS, write_run


class Page(HTMLParser):
    """What a page holds, by tag; and whether its elements close in order."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[dict[str, str | None]]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = [write_run(folder / f"rdp-{seed}", seed=seed, updates=12) for seed in (1, 2)]
    made += [write_run(folder / "global", updates=12, overrides=("rollout.exploration=global",))]
    return made


@pytest.fixture(scope="module")
def text(runs):
    return render(read_runs(runs))


def test_a_page_is_well_formed_and_every_image_chart_and_table_says_what_it_is(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert all(image["alt"] for image in page.found["img"])
    drawings = [div for div in page.found["div"] if div.get("class") == "drawing"]
    assert len(drawings) == len(page.found["svg"]) >= 10
    assert all(div["role"] == "img" and div["aria-label"] for div in drawings)
    assert len(page.found["caption"]) == len(page.found["table"])
    assert len(page.found["h1"]) == 1


def test_a_page_refers_to_nothing_outside_itself(text: str) -> None:
    page = Page(text)
    targets = [
        attributes[name]
        for elements in page.found.values()
        for attributes in elements
        for name in ("src", "href", "xlink:href", "srcset", "data", "action")
        if attributes.get(name)
    ]
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "@import" not in text
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", text))
    policy = next(meta for meta in page.found["meta"] if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_no_two_drawings_share_a_name(text: str) -> None:
    page = Page(text)
    names = [element["id"] for elements in page.found.values() for element in elements if element.get("id")]
    assert len(names) == len(set(names))


def test_every_link_of_the_contents_leads_somewhere(text: str) -> None:
    page = Page(text)
    names = {element["id"] for elements in page.found.values() for element in elements if element.get("id")}
    links = {link["href"] for link in page.found["a"]}
    assert {"#summary", "#alarm", "#curves", "#heldout", "#groups", "#time", "#config"} <= links
    assert {link.removeprefix("#") for link in links} <= names


def test_drawings_use_the_pages_colours_and_fonts_alone(text: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()
    assert "DejaVu" not in drawings
    used = set(re.findall(r"var\((--[a-z]+-?\d*)\)", text))
    for block in re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL):
        assert used - {"--own"} <= set(re.findall(r"(--[a-z]+[a-z0-9-]*):", block))


def test_the_page_shows_curves_groups_seeds_as_one_differences_and_the_papers_rows(text: str) -> None:
    for words in ("rdp-* (2 seeds)", "Task reward, mean", "Background drift, mean", "Gradient norm", "No alarm"):
        assert words in text
    for words in ("RC-GRPO-Editing (RDP + ACD)", "24.952", "21.529", "rollout.exploration", "waiting for rollouts"):
        assert words in text
    assert len(Page(text).found["article"]) == 2 + 3 * GROUPS * 2
    assert "Share of groups skipped <b>0</b>" in text


MARKUP = "</script></title><img src=x onerror=alert(1)><script>alert(2)</script>"


def test_markup_in_the_name_or_in_any_file_of_a_run_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", updates=2, every=1)
    plain = Page(render(read_runs([folder])))
    for name, changes in {
        "environment.json": {"machine": MARKUP, "commit": MARKUP},
        "summary.json": {"note": MARKUP},
    }.items():
        record = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(record | changes))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    odd = [line[:-1] + f', "acd/{MARKUP}": {number}}}' for number, line in enumerate(lines)]
    (folder / "metrics.jsonl").write_text("\n".join(odd) + "\n")
    for path in (folder / "evaluations").iterdir():
        record = json.loads(path.read_text())
        record["tasks"][0] = MARKUP
        record[f"new/{MARKUP}"] = record["reward"]
        path.write_text(json.dumps(record))
    (folder / "config.yaml").write_text(
        (folder / "config.yaml").read_text().replace("model: pocket", f"model: {MARKUP!r}", 1)
    )
    (run,) = read_runs([folder])
    # Half a formula, too: matplotlib would set it as one.
    object.__setattr__(run, "name", f"{MARKUP}$\\frac{{")
    text = render([run])
    page = Page(text)
    assert "&lt;img src=x" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(" in text
    assert page.open == []
    assert not [image for image in page.found["img"] if not str(image["src"]).startswith("data:image/")]
    assert not [
        name for elements in page.found.values() for attributes in elements for name in attributes if name[:2] == "on"
    ]
    obeyed = [script for script in page.found["script"] if script.get("type") != "application/json"]
    assert obeyed == [script for script in plain.found["script"] if script.get("type") != "application/json"] == [{}]


def test_the_one_script_of_the_page_is_the_one_that_its_policy_lets_run(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (policy,) = (meta["content"] for meta in Page(text).found["meta"] if meta.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert re.findall(r"script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]
    assert "addEventListener" in script


def test_a_hacked_run_is_said_at_the_top(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", updates=48, heldout=lambda update: 0.6 - 0.004 * abs(update - 24))
    text = render(read_runs([folder]))
    assert "reward hacking?" in text
    assert "From <strong>update 24</strong> on" in text


def test_a_run_without_held_out_tasks_or_log_still_has_a_page(tmp_path: Path) -> None:
    text = render(read_runs([write_run(tmp_path / "run", updates=1, heldout=None, logged=0, finished=False)]))
    for words in ("not finished", "Not watched", "No run has two held-out evaluations", "no scored group"):
        assert words in text
    assert Page(text).open == []


def test_compbench_results_in_a_runs_folder_stand_above_the_papers(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", updates=1)
    official = {"lc_i": 0.5, "lc_t": None, "psnr": "inf", "ssim": 0.91, "lpips": 0.0712}
    overall = {"expected": 6, "measured": 5, "official": official, "corrected": official}
    (folder / "compbench.json").write_text(json.dumps({"model": "mine", "whole": False, "overall": overall}))
    text = render(read_runs([folder]))
    assert "run: mine" in text
    assert "5 of 6, not whole: not comparable" in text
    assert "0.910" in text
    (folder / "compbench.json").write_text("{}")
    with pytest.raises(ValueError, match=r"compbench\.json is not what .* writes"):
        render(read_runs([folder]))


def test_the_command_writes_the_page_that_its_function_writes_but_for_the_date_and_refuses_in_a_line_what_is_no_run(
    runs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "page.html"
    result = CliRunner().invoke(app, ["report", str(runs[0]), "--out", str(out)])
    assert result.exit_code == 0
    assert out.read_text().startswith("<!doctype html>")
    write_report(runs[:1], tmp_path / "again")
    first, second = (re.sub(r"written [^<]*", "", path.read_text()) for path in (out, tmp_path / "again"))
    assert first == second
    refused = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere"), "--out", str(out)])
    assert refused.exit_code == 2


def test_a_metric_is_in_one_section_and_better_downwards_where_its_name_says_so() -> None:
    names = ["heldout/reward", "heldout/x", "acd/mean", "update/grad_norm", "update/first_step/kl_edit", "pool/none"]
    found = dict(sections(names))
    assert list(chain.from_iterable(found.values())) == [names[index] for index in (2, 0, 1, 3, 4)]
    assert title("heldout/ground_truth/success") == "held-out / ground truth / success"
    assert lower_is_better("background_drift")
    assert not lower_is_better("reward")
