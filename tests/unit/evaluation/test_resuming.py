"""What a killed evaluation leaves, and what the next one makes of it; no cluster."""

import json
import os

import pytest

from deploy.configs import load_config
from deploy.evaluating.compbench import _known
from deploy.evaluating.compbench_edits import MADE_BY, Evaluation, check_maker, without_edit
from rc_grpo.durable import write_whole
from rc_grpo.evaluation.journal import Journal
from rc_grpo.evaluation.layout import Benchmark, Edits, write_benchmark
from rc_grpo.evaluation.measuring import Measured, MeasureSettings
from rc_grpo.evaluation.scores import Scores
from rc_grpo.pocket.world import PocketWorld

SETTINGS = MeasureSettings(clip=None, lpips=False)
RECORD = Measured(Scores(psnr=float("inf")), Scores(psnr=60.0)).as_json()


@pytest.fixture
def evaluation(tmp_path):
    write_benchmark(tmp_path, list(PocketWorld("heldout", 6)))
    benchmark = Benchmark.open(tmp_path)
    return Evaluation(load_config("pocket", []), benchmark, Edits(benchmark.results, "mine"), None, steps=6)


def known(evaluation, settings=SETTINGS):
    with Journal.opened(evaluation.edits.folder / "measures.jsonl") as journal:
        return _known(evaluation, settings, evaluation.benchmark.samples, journal)


@pytest.fixture
def measured(evaluation):
    """An evaluation of which every edit is there and the first two are measured."""
    paths = [evaluation.edits.path(sample) for sample in evaluation.benchmark.samples]
    for path in paths:
        write_whole(path, b"an edit")
    with Journal.opened(evaluation.edits.folder / "measures.jsonl") as journal:
        for sample, path in list(zip(evaluation.benchmark.samples, paths, strict=True))[:2]:
            identity = [path.stat().st_size, path.stat().st_mtime_ns]
            journal.append({"task_id": sample.task_id, "settings": SETTINGS.digest, "edit": identity} | RECORD)
    return evaluation


def test_a_record_is_there_when_the_journal_is_opened_again(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    for number in range(3):
        with Journal.opened(path) as journal:
            assert [record["n"] for record in journal.records] == list(range(number))
            journal.append({"n": number})


@pytest.mark.parametrize("torn", [b"{", b'{"n": 7', b'{"n": 7}'])
def test_what_a_kill_left_of_a_line_is_cut_off_and_nothing_else(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"n": 0}\n{"n": 1}\n' + torn)
    with Journal.opened(path) as journal:
        assert [record["n"] for record in journal.records] == [0, 1]
        journal.append({"n": 2})
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("line", ["nonsense", "[1]"])
def test_a_line_that_no_kill_explains_is_an_error_that_names_it(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"n": 0}}\n{line}\n{{"n": 2}}\n')
    with pytest.raises(ValueError, match=r"journal.jsonl, line 2 is not"), Journal.opened(path):
        pass


def test_only_samples_without_an_edit_are_still_to_be_made(evaluation):
    done = evaluation.benchmark.samples[::2]
    for sample in done:
        write_whole(evaluation.edits.path(sample), b"an edit")
    assert list(without_edit(evaluation)) == list(evaluation.benchmark.samples[1::2])


def test_what_was_measured_is_known_and_infinity_with_it(measured):
    assert list(known(measured)) == [sample.task_id for sample in measured.benchmark.samples[:2]]
    assert next(iter(known(measured).values())).official.psnr == float("inf")


def test_an_edit_that_was_replaced_is_measured_anew(measured):
    first, second = measured.benchmark.samples[:2]
    path = measured.edits.path(first)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert list(known(measured)) == [second.task_id]


def test_records_of_other_settings_are_not_taken(measured):
    assert not known(measured, MeasureSettings(clip="another", lpips=False))
    assert len(known(measured, MeasureSettings(clip=None, lpips=False, device="cpu"))) == 2


def test_edits_of_two_models_are_not_mixed(evaluation):
    check_maker(evaluation)
    check_maker(evaluation)
    other = Evaluation(evaluation.config, evaluation.benchmark, evaluation.edits, None, steps=28)
    with pytest.raises(ValueError, match=r"another model or setting \(steps 6 there, 28 now\); name another --model"):
        check_maker(other)


def test_edits_that_somebody_else_made_are_not_added_to(measured):
    assert not (measured.edits.folder / MADE_BY).exists()
    with pytest.raises(ValueError, match="this command did not make; measure them as they are"):
        check_maker(measured)
