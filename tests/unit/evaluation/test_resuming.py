"""What a killed evaluation leaves, and what the next one makes of it; no cluster."""

import asyncio
import json
import os

import numpy as np
import pytest

from deploy.configs import load_config
from deploy.evaluating.compbench import _known, _opened
from deploy.evaluating.compbench_edits import (
    GIVE_UP_AFTER,
    MADE_BY,
    RESIZED,
    Evaluation,
    _References,
    check_maker,
    resized_of,
    without_edit,
)
from rc_grpo.durable import write_whole
from rc_grpo.editor.reference.editor import Edited, EditFailedError, Reference
from rc_grpo.editor.reference.terms import Options
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, write_benchmark
from rc_grpo.evaluation.compbench.measuring import Measured, MeasureSettings
from rc_grpo.evaluation.compbench.scores import Scores
from rc_grpo.evaluation.foreign import Foreign
from rc_grpo.evaluation.journal import Journal
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.pool import PoolError

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


def by(evaluation, origin):
    return Evaluation(evaluation.config, evaluation.benchmark, evaluation.edits, None, 6, origin)


@pytest.mark.parametrize("options", [{"steps": 9}, {"guidance": 2.0}])
def test_edits_of_another_editor_are_not_mixed_with_others_of_its_own_or_ours(evaluation, options):
    stock = by(evaluation, Reference.open("pocket", Options()))
    check_maker(stock)
    check_maker(by(evaluation, Reference.open("pocket", Options())))
    for other in (by(evaluation, Reference.open("pocket", Options(**options))), evaluation):
        with pytest.raises(ValueError, match=r"another model or setting .* name another --model"):
            check_maker(other)


def test_edits_of_two_folders_are_not_mixed(evaluation, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    check_maker(by(evaluation, Foreign(tmp_path / "one", {}, {})))
    check_maker(by(evaluation, Foreign(tmp_path / "other" / ".." / "one", {}, {})))
    with pytest.raises(ValueError, match=r"edits_of '.*/one' there, '.*/other' now"):
        check_maker(by(evaluation, Foreign(tmp_path / "other", {}, {})))


@pytest.mark.parametrize("inner", ["", "mine_local", "mine_local/add"])
def test_a_folder_of_this_command_s_own_is_not_copied_onto_itself(evaluation, inner):
    with pytest.raises(ValueError, match="--no-edit --model mine does that"):
        _opened(evaluation.edits.folder / inner, evaluation.edits, evaluation.benchmark)


class Editors:
    """Stands for the pool: fails on the tasks that are named so."""

    async def edit(self, task, seed):
        if task.task_id.startswith("bad"):
            raise EditFailedError(f"no {task.task_id}")
        return Edited(np.full((4, 4, 3), seed, np.uint8), (8, 8) if task.task_id == "large" else (4, 4))


def edit_all(evaluation, names):
    """Return what came of each task, until there is an error that is nobody's own."""
    came = {}

    async def work(editing):
        for seed, name in enumerate(names):
            try:
                came[name] = await editing.edit(EditTask(name, "add", b"", "do", b""), seed)
            except ValueError as error:
                came[name] = str(error)

    with Journal.opened(evaluation.edits.folder / RESIZED) as journal:
        editing = _References(evaluation, Reference.open("pocket", Options()), journal)
        editing._pool = Editors()
        asyncio.run(work(editing))
    return came


def test_what_an_editor_gives_in_another_size_is_known_to_the_next_run(evaluation):
    assert resized_of(evaluation.edits) == {}
    came = edit_all(evaluation, ["plain", "large"])
    assert {name: decode_rgb(png)[0, 0, 0] for name, png in came.items()} == {"plain": 0, "large": 1}
    edit_all(evaluation, ["plain"])
    assert resized_of(evaluation.edits) == {"large": "8x8 to 4x4 (height x width)"}


def test_an_editor_that_fails_on_whatever_it_is_given_ends_the_evaluation(evaluation):
    bad = [f"bad-{number}" for number in range(GIVE_UP_AFTER)]
    with pytest.raises(PoolError, match=r"the pipeline pocket failed on each of the 3 tasks .*last, bad-2: no bad-2"):
        edit_all(evaluation, bad)
    came = edit_all(evaluation, ["good", *bad, *bad])
    assert [came[name] for name in bad] == [f"no {name}" for name in bad]
