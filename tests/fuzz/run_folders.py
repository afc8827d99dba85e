"""Folders of runs with one file damaged: each command that reads them ends well or says which file it is, in words."""

import io
import json
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from rich.console import Console

from deploy.batches.ledger import Ledger
from deploy.errors import mendable
from deploy.evaluating.heldout import HeldOutExam
from deploy.evaluating.preflight import check_training
from deploy.looking import replay as replaying
from deploy.looking.inspection import write_sheet
from deploy.records.best import BestLora
from deploy.records.checkpoints import MANIFEST, Checkpoints, Manifest
from deploy.records.data import fingerprints
from deploy.records.folder import RunFolder
from deploy.records.metrics import MetricsLog
from deploy.records.resuming import resumed_config
from deploy.report.page import write_report
from deploy.watching.asking import show_status
from rc_grpo.config import RunConfig, load
from rc_grpo.data import load_tasks, write_experience
from rc_grpo.data.fingerprint import Fingerprint
from rc_grpo.data.log.policies import PolicyStore
from rc_grpo.editor import lora
from rc_grpo.editor.loading import load_rollout_editor
from rc_grpo.messages import PolicyVersion
from tests.fuzz.mutations import Draw, json_texts, mutated_bytes, mutated_headers
from tests.fuzz.target import Refused, Target, ask
from tests.unit.deploy.report.folders import logged_group, write_run

_OVERRIDES = ("data.train.limit=12", "evaluation.tasks=0", "rollout.group_size=4", "output.experience=images")
_UPDATE = "update-00002"
_ROOT = tempfile.TemporaryDirectory(prefix="fuzz-runs-")


@cache
def _template() -> dict[str, bytes]:
    """Return the files of a run by name."""
    folder = write_run(
        Path(_ROOT.name) / "template", updates=2, every=1, logged=1, finished=False, overrides=_OVERRIDES
    )
    config = load(folder / "config.yaml")
    editor = load_rollout_editor(config.editor, config.rollout, config.seed)
    version, weights = lora.pack(2, editor.policy.weights())
    PolicyStore(folder / "policies").keep(version, weights.tobytes())
    logged = logged_group(2, 0, 0.5, np.random.default_rng(0))
    logged = replace(logged, candidates=replace(logged.candidates, policy=version))
    write_experience(folder / "experience" / f"{_UPDATE}.parquet", [logged], "images")
    files = RunFolder(folder)
    files.announce({"address": "127.0.0.1:1", "namespace": "rc-grpo-run", "auth": "disabled"})
    files.keep_data({"train": Fingerprint.of(load_tasks(config.data.train)).as_json()})
    (folder / "lora-best").mkdir()
    told = {"update": 2, "reward": 0.5, "version": vars(version), "exported_digest": "0"}
    (folder / "lora-best/held_out.json").write_text(json.dumps(told))
    kept = Checkpoints(folder / "checkpoints", kept=2)
    for update in (1, 2):
        begun = kept.begin(update)
        (kept.folder / begun / "weights.bin").write_bytes(bytes(64))
        ledger = {"learned_below": update, "except": [], "dropped": {"stale": 1}, "replaced": {}}
        kept.commit(begun, Manifest(update, PolicyVersion(update, "ab", 28, False), ledger, 3.5))
    summary = {"updates": 2, "training_minutes": 3.5, "heldout": {"before": 0.5, "after": 0.6}}
    (folder / "summary.json").write_text(json.dumps(summary))
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {name: (folder / name).read_bytes() for name in names if "tensorboard" not in name and name != ".lock"}
    shutil.rmtree(folder)
    return found


_JSON = ("summary.json", "cluster.json", "data.json", "environment.json", f"checkpoints/{_UPDATE}/{MANIFEST}",
         f"evaluations/{_UPDATE}.json", "lora-best/held_out.json")  # fmt: skip
_REPLACED = ("a folder", "empty", "a link to itself", "another file", "a page of HTML", "gone")


@st.composite
def _damage(draw: Draw) -> tuple[str, str, bytes]:
    """A file's name, what becomes of it, and its bytes."""
    files = _template()
    name = draw(st.sampled_from([*_JSON, *_JSON, *sorted(files)]))
    data = files[name]
    if draw(st.integers(0, 3)) == 0:
        return name, draw(st.sampled_from(_REPLACED)), b""
    if name in _JSON:
        text = draw(json_texts(json.loads(data)))
        return name, "damaged", text.encode("utf-8", "surrogatepass")
    if name == "metrics.jsonl":
        lines = data.decode().splitlines()
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = draw(json_texts(json.loads(lines[at])))
        return name, "damaged", ("\n".join(lines) + draw(st.sampled_from(["\n", ""]))).encode("utf-8", "surrogatepass")
    if name.endswith(".safetensors"):
        return name, "damaged", draw(st.one_of(mutated_headers(data), mutated_bytes([data])))
    return name, "damaged", draw(mutated_bytes([data]))


class _ReachedError(ValueError):
    """A command has read all that it reads before the long work begins."""


def _reached(*_: Any, **__: Any) -> None:
    raise _ReachedError("the long work begins")


def _console() -> Console:
    return Console(file=io.StringIO(), width=100)


def _status(run: Path) -> None:
    show_status(str(run), None, run.parent, _console())
    show_status(None, None, run.parent, _console())


def _report(run: Path) -> None:
    write_report([run], run.parent / "report.html")
    (run.parent / "report.html").read_text(encoding="utf-8")


def _inspect(run: Path) -> None:
    write_sheet(run, None, 4, run.parent / "sheet.png")


def _replay(run: Path) -> None:
    task_id = logged_group(2, 0, 0.5, np.random.default_rng(0)).task.task_id
    for group in (f"2/{task_id}", "2"):
        try:
            replaying.show_replay(run, group, None, _console())
        except _ReachedError:
            list(replaying._surroundings(run, load(run / "config.yaml"), mock.Mock(type="cpu")))


def _resume(run: Path) -> None:
    """Do what `deploy.train.start` and `deploy.run.Run` do before Ray, and what is read again once it is up."""
    _remove(run / "summary.json")
    config: RunConfig = resumed_config(run)
    check_training(config)
    files, tasks = RunFolder(run), load_tasks(config.data.train)
    exam = HeldOutExam(config)
    fingerprints(files, tasks, exam.tasks, resume=True)
    files.describe(config, {"commit": "new"})
    latest = Checkpoints(run / "checkpoints", kept=2).latest()
    assert latest is not None, "one torn checkpoint took the other with it"
    name, manifest = latest
    assert name == f"update-{manifest.update:05d}"
    Ledger(2, 1, len(tasks), 0, 0, 0).restore(manifest.ledger)
    log = MetricsLog(run)
    try:
        log.rewind(manifest.update, files.aside(manifest.update))
    finally:
        log.close()
    exam.go_back(files.evaluations())
    _ = BestLora(run).measured


COMMANDS: dict[str, Callable[[Path], None]] = {
    "status": _status, "report": _report, "inspect": _inspect, "replay": _replay, "train --resume": _resume,
}  # fmt: skip


# A report draws some twenty charts, for seconds: less often than what takes a tenth of one.
_DRAWN = ["status", "inspect", *["replay"] * 2, *["train --resume"] * 3] * 2 + ["report"]


def check(drawn: tuple[str, tuple[str, str, bytes]]) -> None:
    command, (name, what, data) = drawn
    run = Path(_ROOT.name) / "runs" / "run"
    shutil.rmtree(run.parent, ignore_errors=True)
    for other, content in _template().items():
        if other == "summary.json" != name and command != "report":
            continue
        (run / other).parent.mkdir(parents=True, exist_ok=True)
        (run / other).write_bytes(content)
    _put(run / name, what, data)
    # A configuration that is another, and legal, is not damaged: what it then leads to need not name the file.
    naming = "" if name == "config.yaml" else Path(name).name
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # What a damaged file names as an address is nobody's business.
        stack.enter_context(
            mock.patch.object(socket, "create_connection", side_effect=ConnectionRefusedError("refused"))
        )
        stack.enter_context(mock.patch.object(replaying, "load_rollout_editor", _reached))
        answer = ask(lambda: COMMANDS[command](run), *mendable(), naming=naming if what == "damaged" else "")
    assert answer is None or isinstance(answer, Refused)


def _remove(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)


def _put(path: Path, what: str, data: bytes) -> None:
    _remove(path)
    match what:
        case "damaged":
            path.write_bytes(data)
        case "a folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "a link to itself":
            path.symlink_to(path.name)
        case "another file":
            path.write_bytes(_template()["environment.json"])
        case "a page of HTML":
            path.write_text("<!doctype html><title>404</title>\n")


TARGET = Target("run_folders", st.tuples(st.sampled_from(_DRAWN), _damage()), check)
