"""A run's folder with a damaged file: named in a line before anything is started; the rest is read as before."""

import json
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy.batches.ledger import Ledger
from deploy.looking.inspection import write_sheet
from deploy.records.checkpoints import MANIFEST, Checkpoints, Manifest
from deploy.records.folder import RunFolder
from deploy.records.metrics import METRICS, MetricsLog
from deploy.records.reading import read_runs
from deploy.records.resuming import resumed_config
from deploy.report.page import render
from deploy.watching.status import draw_folder
from rc_grpo.data.log.logged import read_groups
from rc_grpo.data.log.policies import PolicyAlteredError, PolicyStore
from rc_grpo.evaluation.gains import HeldOut
from rc_grpo.kept import DamagedFileError
from rc_grpo.messages import PolicyVersion
from tests.fuzz.target import Refused, ask
from tests.unit.deploy.report.folders import write_run

EXPERIENCE = "experience/update-00002.parquet"
VERSION = PolicyVersion(1, "ab", 28, is_identity=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", updates=2, every=1, logged=1, finished=False, overrides=("data.train.limit=12",))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("environment.json", '{"earlier_starts": {}}'),
        ("environment.json", "[]"),
        ("data.json", '{"train": {"origin": "", "tasks": {"a": "0"}}}'),
        ("data.json", '{"train": null}'),
        ("data.json", '{"heldout": 3}'),
        ("evaluations/update-00002.json", "{}"),
        ("evaluations/update-00001.json", "<html>"),
        (METRICS, '{"update": "1"}\n'),
        (METRICS, '{"update": 1, "reward/task_mean": "0.5"}\n'),
    ],
)
def test_going_on_is_refused_before_anything_is_started(run: Path, name: str, text: str) -> None:
    resumed_config(run)
    (run / name).write_text(text)
    with pytest.raises(DamagedFileError, match=f"{Path(name).name}.*; (bring it back|remove)"):
        resumed_config(run)


def test_what_lies_beside_a_runs_files_is_none_of_them(run: Path) -> None:
    before = RunFolder(run).evaluations()
    for name in ("evaluations/update-00002 (copy).json", "evaluations/update-x.json", "experience/update-.parquet"):
        (run / name).write_text("?")
    assert RunFolder(run).evaluations() == before
    assert list(RunFolder(run).experience()) == [2]
    RunFolder(run).set_aside(0, run / "aside")
    assert list(RunFolder(run).evaluations()) == [0]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"updates": "2", "training_minutes": 1}', '{"updates": 2}', '{"updates": -1, "training_minutes": 1}'],
)
def test_a_damaged_summary_is_named_by_status_and_report(run: Path, text: str) -> None:
    (run / "summary.json").write_text(text)
    for look in (lambda: draw_folder(run), lambda: read_runs([run])):
        with pytest.raises(DamagedFileError, match=r"summary\.json is damaged"):
            look()


@pytest.mark.parametrize(
    "manifest",
    [
        "[]", '{"files": []}', "null", "{",
        json.dumps({"update": 2, "version": vars(VERSION), "ledger": {}, "training_seconds": 1.0, "files": {"a": 3}}),
        json.dumps({"update": "2", "version": vars(VERSION), "ledger": {}, "training_seconds": 1.0, "files": {}}),
        json.dumps({"update": 2, "version": "v2", "ledger": {}, "training_seconds": 1.0, "files": {}}),
        json.dumps({"update": 2, "version": vars(VERSION), "ledger": {}, "training_seconds": 1.0, "files": {}, "x": 1}),
    ],
)  # fmt: skip
def test_a_checkpoint_whose_manifest_is_none_is_skipped_for_the_one_before(tmp_path: Path, manifest: str) -> None:
    kept = Checkpoints(tmp_path, kept=2)
    for update in (1, 2):
        begun = kept.begin(update)
        (tmp_path / begun / "weights").write_bytes(b"w")
        kept.commit(begun, Manifest(update, VERSION, {}, 1.0))
    (tmp_path / "update-00002" / MANIFEST).write_text(manifest)
    found = kept.latest()
    assert found is not None
    assert found[0] == "update-00001"
    assert (tmp_path / ".torn-update-00002").is_dir()


@pytest.mark.parametrize(
    "snapshot",
    [
        {}, {"learned_below": 3, "except": [], "dropped": {}}, {"learned_below": -1, "except": [], "dropped": {}},
        {"learned_below": 10**12, "except": [], "dropped": {}}, {"learned_below": 1, "except": 3, "dropped": {}},
        {"learned_below": 1, "except": [], "dropped": 3}, {"learned_below": "1", "except": [], "dropped": {}},
    ],
)  # fmt: skip
def test_a_ledger_takes_no_snapshot_of_another_plan_and_stays_as_it_was(snapshot: dict[str, object]) -> None:
    ledger = Ledger(tasks=4, updates=2, groups_per_update=1, max_staleness=0, seed=0)
    before = ledger.snapshot()
    with pytest.raises(ValueError, match="none of this run's"):
        ledger.restore(snapshot)
    assert ledger.snapshot() == before


def test_every_flipped_bit_of_the_log_is_found_or_changes_nothing(run: Path) -> None:
    path = run / EXPERIENCE
    whole = path.read_bytes()
    groups = read_groups(path)
    found = 0
    for place in np.random.default_rng(0).integers(0, len(whole), 60).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        again = ask(lambda: read_groups(path), ValueError, naming="update-00002.parquet")
        if isinstance(again, Refused):
            found += 1
            continue
        for one, other in zip(groups, again, strict=True):
            np.testing.assert_array_equal(one.candidates.images, other.candidates.images)
            np.testing.assert_array_equal(one.scores.task_reward, other.scores.task_reward)
    assert found > 20


@pytest.mark.parametrize(
    ("column", "said"), [("seed", "column 'seed' is missing"), ("image", "column 'image'"), ("candidate", "column")]
)
def test_a_log_without_a_column_says_so(run: Path, column: str, said: str) -> None:
    table = pq.read_table(run / EXPERIENCE)
    pq.write_table(table.drop_columns([column]), run / EXPERIENCE)
    for look in (lambda: read_groups(run / EXPERIENCE), lambda: render(read_runs([run]))):
        with pytest.raises(ValueError, match=f"update-00002.parquet is damaged .*{said}"):
            look()


def test_a_log_whose_rows_are_not_whole_groups_is_refused(run: Path) -> None:
    table = pq.read_table(run / EXPERIENCE)
    for rows in (table.slice(1), table.take([0, 2, 3]), table.take([0, 1, 1, 2, 3])):
        pq.write_table(rows, run / EXPERIENCE)
        with pytest.raises(ValueError, match=r"candidates of its groups are not 0, 1, 2"):
            read_groups(run / EXPERIENCE)
    (run / EXPERIENCE).write_text("no parquet")
    with pytest.raises(ValueError, match=r"update-00002\.parquet is damaged"):
        write_sheet(run, None, 1, run / "x.png")


def test_a_policy_that_is_a_folder_now_was_altered(tmp_path: Path) -> None:
    path = PolicyStore(tmp_path).keep(PolicyVersion(1, "ab" * 32, 28, is_identity=False), b"w")
    path.unlink()
    path.mkdir()
    with pytest.raises(PolicyAlteredError, match="is damaged"):
        PolicyStore(tmp_path).load(1, "ab" * 32)


@pytest.mark.parametrize(
    "change", [{"reward": [1.0]}, {"reward": None}, {"version": {}}, {"rewards": []}, {"subscores": {"j.a": ["x"]}}]
)
def test_an_evaluation_of_another_form_is_none(change: dict[str, object]) -> None:
    made = HeldOut(VERSION, np.ones(2), np.ones(2), {"j.a": np.ones(2)}, {"j": np.ones(2)})
    record = json.loads(made.as_json(["a", "b"]))
    with pytest.raises(ValueError, match="no held-out evaluation"):
        HeldOut.from_json(json.dumps(record | change))


def test_values_that_no_axis_holds_are_drawn_as_missing(run: Path) -> None:
    odd = cycle(("1e400", "-Infinity", "1e300", "NaN", "1" + "0" * 400))
    lines = (run / METRICS).read_text().splitlines()
    assert len(lines) >= 5
    (run / METRICS).write_text(
        "\n".join(line.replace('"acd/mean": ', f'"acd/mean": {next(odd)}, "acd/old": ') for line in lines) + "\n"
    )
    (record,) = read_runs([run])
    assert np.isnan(record.metrics["acd/mean"]).all()
    assert "</html>" in render([record])


def test_going_back_keeps_a_torn_line_aside_byte_for_byte(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for update in (1, 2):
        log.write(update, {"a/b": 1.0}, event="update")
    with (tmp_path / METRICS).open("ab") as file:
        file.write(b'{"update": 3, "caf\xc3')
    log.rewind(1, tmp_path / "aside")
    log.close()
    assert [json.loads(line)["update"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1]
    assert (tmp_path / "aside" / METRICS).read_bytes().endswith(b'\n{"update": 3, "caf\xc3')
