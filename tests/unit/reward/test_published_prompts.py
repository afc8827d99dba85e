"""EditScore's published questions: read out of the package when it is there, one line when it is not."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from rc_grpo.config import EditScoreConfig
from reward_service.factory import check_judge, prompts
from reward_service.prompts import PromptError

CONFIG = EditScoreConfig(kind="editscore", model="m", family="qwen2_5_vl", prompts="editscore")
TEXTS = {
    "_context_no_delimit_reasoning_first": 'Answer so:\n{"score": [...]} (10 words)',
    "_prompts_0shot_two_image_edit_rule": "Two images.",
    "_prompts_0shot_tie_rule_SC": "From 0 to 10: a mark of 10 is best.\nAsked: <instruction>",
    "_prompts_0shot_rule_PQ": "One image, 0 to 10.",
}
"""Not the published words: the names under which they are, and what is done to them."""

Install = Callable[[str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs a package of that name, whose import would fail, with this file of texts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "editscore", raising=False)

    def installed(text: str) -> Path:
        folder = tmp_path / "editscore"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise RuntimeError('its code was run')")
        (folder / "vie_prompts.py").write_text(text)
        return folder

    return installed


def assigned(**changes: str | None) -> str:
    return "\n".join(f"{name} = {text!r}" for name, text in (TEXTS | changes).items() if text is not None)


def test_the_published_questions_are_put_together_as_the_published_scorer_does(install: Install) -> None:
    install(assigned())
    check_judge("j", CONFIG)
    found = prompts(CONFIG)
    context = TEXTS["_context_no_delimit_reasoning_first"]
    assert found.sc.filled("add a {cat}") == (
        f"{context}\nTwo images.\nFrom 0 to 25: a mark of 25 is best.\nAsked: add a {{cat}}"
    )
    assert found.pq.text == f"{context}\nOne image, 0 to 25."
    assert found.sc.system is found.pq.system is None
    assert "editscore" not in sys.modules


def test_without_the_package_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward_service.prompts.published.find_spec", lambda name: None)
    with pytest.raises(PromptError, match=r"prompts: editscore wants the package .*: pip install editscore") as error:
        check_judge("j", CONFIG)
    assert "\n" not in str(error.value)


def test_a_package_of_that_name_that_is_another_is_refused(install: Install) -> None:
    install("").joinpath("vie_prompts.py").unlink()
    with pytest.raises(PromptError, match=r"package editscore has no vie_prompts\.py; install one that does"):
        prompts(CONFIG)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (assigned(_prompts_0shot_rule_PQ=None), "holds no text _prompts_0shot_rule_PQ;"),
        (assigned(_prompts_0shot_tie_rule_SC="0 to 10"), "has no place <instruction>"),
        (assigned() + "\n_prompts_0shot_rule_PQ += (", "is no readable Python"),
        (
            assigned(_prompts_0shot_rule_PQ=None) + "\n_prompts_0shot_rule_PQ = str(1)",
            "holds no text _prompts_0shot_rule",
        ),
        ("\0", "is no readable Python"),
    ],
)
def test_texts_that_are_not_there_are_named(install: Install, text: str, said: str) -> None:
    install(text)
    with pytest.raises(PromptError, match=said) as error:
        prompts(CONFIG)
    assert "\n" not in str(error.value)


def test_a_file_of_that_name_is_still_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "editscore").write_text("sc: {text: 'did it {instruction}?'}\npq: {text: 'good?'}\n")
    found = prompts(CONFIG.model_copy(update={"prompts": Path("./editscore").absolute()}))
    assert found.pq.text == "good?"


def test_the_preset_is_kept_by_name_in_the_configuration() -> None:
    assert EditScoreConfig.model_validate(CONFIG.model_dump(mode="json")) == CONFIG
    other = CONFIG.model_copy(update={"prompts": Path("mine.yaml")})
    assert EditScoreConfig.model_validate(other.model_dump(mode="json")).prompts == Path("mine.yaml")


@pytest.mark.skipif(find_spec("editscore") is None, reason="the published package is not among ours")
def test_the_published_package_itself_where_somebody_has_it() -> None:
    found = prompts(CONFIG)
    assert "{instruction}" in found.sc.text
    assert "from 0 to 25" in found.sc.text
    assert "[naturalness, artifacts]" in found.pq.text
