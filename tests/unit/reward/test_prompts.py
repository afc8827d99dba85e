from pathlib import Path

import pytest

from reward_service import pocket_judge
from reward_service.prompts import DEFAULT_PROMPTS, Prompt, PromptError, Prompts, chat

ASK = Prompt(text='Do "{instruction}" and answer {"score": [1, 2]}')


@pytest.mark.parametrize("path", [DEFAULT_PROMPTS, pocket_judge.PROMPTS_PATH], ids=lambda path: path.name)
def test_packaged_prompts_ask_both_questions_and_only_sc_knows_the_instruction(path: Path) -> None:
    prompts = Prompts.load(path)
    assert "make it red" in prompts.question("sc").filled("make it red")
    assert "make it red" not in prompts.question("pq").filled("make it red")


def test_qwen2_5_images_are_numbered_and_the_source_is_first() -> None:
    (user,) = chat(ASK, ["data:source", "data:edited"], "make it red", "qwen2_5_vl")
    assert [part.get("text") or part["image_url"]["url"] for part in user["content"]] == [
        "<img1>: ",
        "data:source",
        "<img2>: ",
        "data:edited",
        'Do "make it red" and answer {"score": [1, 2]}',
    ]


def test_qwen3_images_come_as_they_are() -> None:
    (user,) = chat(ASK, ["data:edited"], "make it red", "qwen3_vl")
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]


def test_a_system_message_goes_first_and_only_when_there_is_one() -> None:
    system, user = chat(Prompt(system="Be strict.", text="Judge."), ["data:x"], "", "qwen3_vl")
    assert (system, user["role"]) == ({"role": "system", "content": "Be strict."}, "user")


@pytest.mark.parametrize(
    "text", ["sc: {text: no placeholder}\npq: {text: x}", "sc: {text: '{instruction}'}", "a: [", "sc: 1\npq: 2"]
)
def test_an_unfit_prompt_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(PromptError, match=r"mine\.yaml"):
        Prompts.load(tmp_path / "mine.yaml")


def test_a_missing_prompt_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"nowhere\.yaml"):
        Prompts.load(tmp_path / "nowhere.yaml")
