"""CompBench on real actors: killed among the edits, resumed to its end, and every sample accounted for."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tiny_clip import save_tiny_clip
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, write_benchmark
from rc_grpo.images import decode_rgb
from rc_grpo.pocket.world import PocketWorld
from tests.references import PIX2PIX, write_small

TASKS = 6
REFERENCES = 3
EVALUATE = """
import sys
from pathlib import Path
from rich.console import Console
from deploy.evaluating.compbench import run_compbench
from deploy.configs import load_config
from rc_grpo.evaluation.compbench.measuring import MeasureSettings

folder = Path(sys.argv[1])
config = load_config("pocket", ["name=compbench-test", "rollout.workers=1", "evaluation.steps=8"])
settings = MeasureSettings(clip=str(folder / "clip"), lpips=False)
run_compbench(config, folder, None, folder / "out.json", Console(width=120), model="mine", settings=settings)
"""


def start(folder: Path, **options) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", EVALUATE, str(folder)], text=True, **options)


def finished(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "editing_results").rglob("[!.]*.png")}


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_killed_evaluation_goes_on_without_redoing_or_losing_a_sample(tmp_path):
    write_benchmark(tmp_path, PocketWorld("heldout", TASKS))
    save_tiny_clip(tmp_path / "clip")
    benchmark, edits = Benchmark.open(tmp_path), Edits(tmp_path / "editing_results", "mine")

    killed = start(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(finished(tmp_path)) < 2:
            assert killed.poll() is None, "it ended before it was to be killed"
            time.sleep(0.02)
    finally:
        killed.kill()
        killed.wait()
    before = finished(tmp_path)
    assert 2 <= len(before) < TASKS

    # Meanwhile an edit is damaged and a source is lost: both are to be told, and to cost nobody else's number.
    done = [sample for sample in benchmark.samples if edits.path(sample) in before]
    broken = done[0]
    path = edits.path(broken)
    path.write_bytes(path.read_bytes()[:100])
    del before[path]
    lost = next(sample for sample in benchmark.samples if sample not in done)
    (tmp_path / "tasks" / lost.family / "input_image" / lost.name).unlink()

    resumed = start(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, errors = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, errors

    after = finished(tmp_path)
    assert {path: after[path] for path in before} == before
    summary = json.loads((tmp_path / "out.json").read_text())
    assert json.loads((edits.folder / "summary.json").read_text()) == summary
    assert list(summary["missing"]) == [lost.task_id]
    assert "no file" in summary["missing"][lost.task_id]
    assert list(summary["failed"]) == [broken.task_id]
    assert "the edit is not a readable image" in summary["failed"][broken.task_id]
    assert not summary["whole"]
    assert summary["overall"]["measured"] == TASKS - 2
    assert lost.task_id in said
    assert broken.task_id in said

    records = [json.loads(line) for line in (edits.folder / "measures.jsonl").read_text().splitlines()]
    whole = {sample.task_id for sample in benchmark.samples if sample not in (broken, lost)}
    assert sorted(record["task_id"] for record in records) == sorted(whole)
    for record in records:
        assert all(record["official"][name] is not None for name in ("psnr", "ssim", "lc_i", "lc_t"))
        assert record["official"]["lpips"] is None
    for family, means in summary["families"].items():
        values = [record["official"]["psnr"] for record in records if record["task_id"].startswith(f"{family}/")]
        expected = round(float(np.mean(values)), 3) if values else None
        assert means["official"]["psnr"] == pytest.approx(expected, abs=1.1e-3) if values else expected is None

    edit = decode_rgb(edits.path(done[1]).read_bytes())
    assert edit.shape == (128, 128, 3)
    assert not np.array_equal(edit, decode_rgb(benchmark.originals(done[1]).source))


REFERENCE = """
import sys
from pathlib import Path
from rich.console import Console
from deploy.evaluating.compbench import run_compbench
from deploy.configs import load_config
from rc_grpo.editor.reference.editor import Reference
from rc_grpo.editor.reference.terms import Options
from rc_grpo.evaluation.compbench.measuring import MeasureSettings

folder = Path(sys.argv[1])
config = load_config("pocket", ["name=reference-test", "rollout.workers=1"])
reference = Reference.open(str(folder / "pix2pix"), Options(steps=40))
settings = MeasureSettings(clip=None, lpips=False)
out = Path(sys.argv[2])
run_compbench(config, folder, None, out, Console(width=120), settings=settings, reference=reference, model=sys.argv[3])
"""


def start_reference(folder: Path, out: Path, model: str, **options) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", REFERENCE, str(folder), str(out), model]
    return subprocess.Popen(command, text=True, **options)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_another_editor_s_killed_evaluation_goes_on_to_the_pictures_of_one_that_was_not_killed(tmp_path):
    write_benchmark(tmp_path, PocketWorld("heldout", REFERENCES))
    write_small(tmp_path, PIX2PIX)
    killed = start_reference(
        tmp_path, tmp_path / "out.json", "InstructPix2Pix", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not finished(tmp_path):
            assert killed.poll() is None, "it ended before it was to be killed"
            time.sleep(0.01)
    finally:
        killed.kill()
        killed.wait()
    before = finished(tmp_path)
    assert len(before) < REFERENCES

    for model in ("InstructPix2Pix", "whole"):
        resumed = start_reference(
            tmp_path, tmp_path / f"{model}.json", model, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, errors = resumed.communicate(timeout=120)
        assert resumed.returncode == 0, errors
        assert "takes no mask and no size" in said
    after = finished(tmp_path)
    assert {path: after[path] for path in before} == before

    benchmark = Benchmark.open(tmp_path)
    resumed_edits, whole = (Edits(tmp_path / "editing_results", model) for model in ("InstructPix2Pix", "whole"))
    for sample in benchmark.samples:
        assert resumed_edits.path(sample).read_bytes() == whole.path(sample).read_bytes()
    summary = json.loads((tmp_path / "InstructPix2Pix.json").read_text())
    assert summary["overall"]["measured"] == REFERENCES
    assert summary["pipeline"]["takes_no"] == ["mask", "size"]
    assert "| InstructPix2Pix | published |" in (whole.folder / "comparison.md").read_text()
