"""The fuzz targets with a few derandomised inputs each, and every input that once broke a promise."""

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.corpus import CORPUS
from tests.fuzz.fuzzing import fuzz
from tests.fuzz.target import Refused, Target, UndocumentedError, ask
from tests.fuzz.targets import NAMES, load

EXAMPLES = {
    "judge_answers": 120,
    "rows": 30,
    "images": 120,
    "masks": 80,
    "run_lengths": 120,
    "lora_files": 30,
    "configurations": 12,
    "run_folders": 10,
    "weight_files": 60,
}


def test_every_module_of_inputs_is_a_target_that_the_gate_tries() -> None:
    folder = Path(__file__).parents[1] / "fuzz"
    targets = {path.stem for path in folder.glob("*.py") if "TARGET = Target(" in path.read_text()}
    assert targets == set(NAMES) == set(EXAMPLES)
    assert all(load(name).name == name for name in NAMES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_no_input_breaks_a_promise(name: str) -> None:
    target = load(name)

    @settings(
        max_examples=EXAMPLES[name],
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def tried(drawn: Any) -> None:
        target.check(drawn)

    tried()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "drawn"), CORPUS)
def test_what_once_broke_a_promise_keeps_it(name: str, drawn: Any) -> None:
    load(name).check(drawn)


def test_an_undocumented_error_is_found_shrunk_and_told_once(tmp_path: Path) -> None:
    from hypothesis import strategies as st

    def check(drawn: int) -> None:
        ask(lambda: 1 // 0 if drawn >= 7 else _refuse(), ValueError)

    tally = fuzz(Target("sevens", st.integers(0, 100), check), 0.5, tmp_path, say=lambda _: None)
    (crash,) = tally.crashes
    assert crash.error.startswith("UndocumentedError: ZeroDivisionError")
    assert ast.literal_eval(crash.input) == 7
    assert tally.inputs > 10


def test_a_refusal_must_name_the_file_in_words_that_can_be_shown() -> None:
    assert ask(_refuse, ValueError, naming="no") == Refused("no")
    for words, naming in (("", ""), ("no \ud83d", ""), ("no", "data.json"), ("n" * 30_000, "")):
        with pytest.raises(UndocumentedError):
            ask(lambda words=words: _refuse(words), ValueError, naming=naming)


def _refuse(words: str = "no") -> None:
    raise ValueError(words)
