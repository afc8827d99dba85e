from benchmarks.quote import QUOTE, figure, quoting_files, requote


def test_every_figure_in_the_readme_and_docs_is_the_one_that_was_measured() -> None:
    for path in quoting_files():
        assert requote(path.read_text()) == path.read_text(), f"{path}: run python -m benchmarks.quote"


def test_the_readme_quotes_the_pocket_training() -> None:
    quoted = {match["key"] for path in quoting_files() for match in QUOTE.finditer(path.read_text())}
    assert {
        "heldout_before",
        "heldout_after",
        "seconds_per_update_sequential",
        "seconds_per_update_overlapped",
    } <= quoted
    assert figure("pocket_train", "heldout_gain_in_standard_errors") > 3
    assert figure("pocket_train", "train_minutes") <= 10
