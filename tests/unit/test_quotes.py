import re

from benchmarks.quote import MEASURED, QUOTE, ROOT, figure, quoting_files, requote
from benchmarks.results import FOLDER


def test_every_figure_in_the_readme_and_docs_is_the_one_that_was_measured() -> None:
    for path in quoting_files():
        assert requote(path.read_text()) == path.read_text(), f"{path}: run python -m benchmarks.quote"


def test_no_mark_of_a_figure_goes_unread() -> None:
    for path in quoting_files():
        text = path.read_text()
        read = {match["mark"] for found in (QUOTE, MEASURED) for match in found.finditer(text)}
        assert {*re.findall(r"<!--\w+:[^\n]*?-->", text)} <= read, path


def test_thousands_stay_apart_where_they_are() -> None:
    mark = "<!--gpu_peers:ours_512_update_peak_mib-->"
    value = figure("gpu_peers", "ours_512_update_peak_mib")
    assert value > 1e4
    for written, wanted in (("1,234", f"{value:,.0f}"), ("1234", f"{value:.0f}"), ("9,999.5", f"{value:,.1f}")):
        assert requote(f"{written}{mark} MiB") == f"{wanted}{mark} MiB"


def test_the_readme_quotes_the_pocket_training() -> None:
    quoted = {match["key"] for path in quoting_files() for match in QUOTE.finditer(path.read_text())}
    assert {
        "heldout_gain",
        "heldout_before",
        "heldout_after",
        "seconds_per_update_sequential",
        "seconds_per_update_overlapped",
    } <= quoted
    assert figure("pocket_train", "heldout_gain_in_standard_errors") > 3
    assert figure("pocket_train", "train_minutes") <= 10


def test_every_result_is_in_the_table_of_evidence_with_its_origin() -> None:
    listed = {match["name"] for match in MEASURED.finditer((ROOT / "docs" / "evidence.md").read_text())}
    assert listed == {path.stem for path in FOLDER.glob("*.json")}


def test_a_page_that_quotes_a_figure_says_where_figures_come_from() -> None:
    for path in quoting_files():
        text = path.read_text()
        if QUOTE.search(text) and path.name != "evidence.md":
            assert "evidence.md" in text or MEASURED.search(text), f"{path} quotes figures and names no evidence"
