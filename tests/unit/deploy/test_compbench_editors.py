"""``rc-grpo evaluate --compbench`` of another editor's pipeline, and of a folder of edits: from request to table.

In one process: the pools' actors are called where they stand. That they are actors is the integration test's.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from deploy.configs import load_config
from deploy.evaluating import compbench, compbench_edits
from deploy.evaluating.compbench import run_compbench
from deploy.evaluating.compbench_actor import MeasurerPool, ReferencePool
from rc_grpo.editor.reference.editor import Reference, ReferenceEditor
from rc_grpo.editor.reference.terms import Options
from rc_grpo.evaluation.compbench.frames import Frames
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, write_benchmark
from rc_grpo.evaluation.compbench.measuring import Measured, MeasureSettings
from rc_grpo.evaluation.compbench.scores import Scores
from rc_grpo.images import decode_rgb
from rc_grpo.pocket.world import PocketWorld
from tests.references import PIX2PIX, task, write_small

TASKS = 3
SETTINGS = MeasureSettings(clip=None, lpips=False, device="cpu")
CONFIG = load_config(
    "pocket", ["name=editors-test", "rollout.workers=1", "editor.resolution=64", "editor.dtype=float32"]
)


class Here:
    """Stands for a pool and its actors."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    async def open(self) -> None: ...

    def close(self) -> None: ...


class Measurers(Here):
    async def measure(self, _name: str, *edit: Any) -> Any:
        originals, edited, _caption = edit
        Frames.read(originals, edited)
        return Measured(Scores(psnr=20.0), Scores(psnr=20.0))


class References(Here):
    edits_left = 10**6

    async def open(self) -> None:
        self.editor = ReferenceEditor(*self.arguments[:2])

    async def edit(self, task: Any, seed: int) -> Any:
        References.edits_left -= 1
        if References.edits_left < 0:
            raise SystemExit("killed")
        return self.editor.edit(task, seed)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(compbench, "connect", lambda config: None)
    monkeypatch.setattr(compbench, "MeasurerPool", Measurers)
    monkeypatch.setattr(compbench_edits, "ReferencePool", References)
    monkeypatch.setattr(References, "edits_left", 10**6)
    write_benchmark(tmp_path / "bench", PocketWorld("heldout", TASKS))
    return tmp_path / "bench"


def evaluate(bench: Path, **options: Any) -> tuple[dict[str, Any], str]:
    console = Console(record=True, width=200)
    run_compbench(CONFIG, bench, None, bench / "out.json", console, settings=SETTINGS, **options)
    return json.loads((bench / "out.json").read_text()), console.export_text()


def pictures(bench: Path, model: str) -> list[bytes]:
    return [Edits(bench / "editing_results", model).path(one).read_bytes() for one in Benchmark.open(bench).samples]


def test_a_pipeline_s_edits_are_made_measured_and_set_beside_the_published_row(bench: Path) -> None:
    reference = Reference.open(str(write_small(bench, PIX2PIX)), Options(steps=2))
    summary, said = evaluate(bench, reference=reference, model="InstructPix2Pix")
    assert summary["overall"]["measured"] == TASKS
    assert summary["whole"]
    assert summary["pipeline"]["takes_no"] == ["mask", "size"]
    assert summary["made_by"]["arguments"]["num_inference_steps"] == 2
    assert said.count("takes no mask and no size") == 1
    assert [decode_rgb(png).shape for png in pictures(bench, "InstructPix2Pix")] == [(64, 64, 3)] * TASKS
    table = (bench / "editing_results" / "InstructPix2Pix" / "comparison.md").read_text()
    assert "| InstructPix2Pix | measured, 3/3 |" in table
    assert "| InstructPix2Pix | published | 0.777 | 19.445 | 21.416 | 0.695 | 0.173 |" in table
    assert "published" in said


def test_what_was_stopped_goes_on_to_the_pictures_of_what_was_not(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Reference.open(str(write_small(bench, PIX2PIX)), Options(steps=2))
    evaluate(bench, reference=reference, model="whole")
    # Two are made at a time: whoever asks for the third has written one, and another's second may be on its way.
    monkeypatch.setattr(References, "edits_left", 2)
    with pytest.raises(SystemExit):
        evaluate(bench, reference=reference, model="stopped")
    made = len(list((bench / "editing_results" / "stopped").rglob("[!.]*.png")))
    assert 1 <= made < TASKS
    monkeypatch.setattr(References, "edits_left", TASKS)
    summary, _ = evaluate(bench, reference=reference, model="stopped")
    assert made <= References.edits_left < TASKS
    assert summary["overall"]["measured"] == TASKS
    assert pictures(bench, "stopped") == pictures(bench, "whole")
    assert len(set(pictures(bench, "whole"))) == TASKS


def test_a_folder_of_edits_is_measured_and_what_is_odd_is_said_and_written_down(bench: Path, tmp_path: Path) -> None:
    samples = Benchmark.open(bench).samples
    folder = tmp_path / "GoT"
    for sample, size in zip(samples[:2], ((128, 128), (64, 64)), strict=True):
        path = folder / f"{sample.task_id.removesuffix('.png')}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9, 9, 9)).save(path)
    (folder / "elsewhere.jpg").touch()
    summary, said = evaluate(bench, foreign=folder)
    assert summary["model"] == "GoT"
    assert summary["made_by"] == {"edits_of": str(folder)}
    assert summary["overall"]["measured"] == 2
    assert not summary["whole"]
    assert summary["missing"] == {samples[2].task_id: "the folder of edits has no image of it"}
    assert summary["brought_in"]["other_size"].keys() == {samples[1].task_id}
    assert summary["brought_in"]["surplus"] == {"elsewhere.jpg": "no sample has this name"}
    for sentence in (
        f"1 samples have no image: {samples[2].task_id}",
        "1 images are no sample's: elsewhere.jpg (no sample has this name)",
        f"1 edits have another size than their source, and are scaled as all are to be measured: {samples[1].task_id}",
        "Not whole, and so not comparable with the others: GoT.",
    ):
        assert sentence in said
    assert "| GoT | published |" in (bench / "editing_results" / "GoT" / "comparison.md").read_text()


class Actor:
    """Stands for a Ray class and for an actor of it; what is asked of it is awaited and returned."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def options(self, **options: Any) -> Any:
        def remote(*arguments: Any) -> Any:
            self.made.append((options, arguments))
            answers = {name: SimpleNamespace(remote=_echo(name)) for name in ("describe", "edit", "measure")}
            return SimpleNamespace(**answers)

        return SimpleNamespace(remote=remote)


def _echo(name: str) -> Any:
    async def answer(*arguments: Any) -> Any:
        return (name, *arguments)

    return answer


@pytest.mark.parametrize("kind", ["measure", "reference"])
def test_measurers_and_other_editors_sit_in_the_rollout_workers_places(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(
        "pocket", ["rollout.workers=2", "rollout.threads=3", "rollout.resources={num_cpus: 0.5, custom: {seat: 1}}"]
    )
    reference = Reference.open("pocket", Options())
    pool: Any
    if kind == "measure":
        pool, first = MeasurerPool(SETTINGS, config.rollout, "home"), (SETTINGS,)
    else:
        pool = ReferencePool(reference, config.editor, config.rollout, "home")
        first = (reference, config.editor)
    actor = Actor()
    monkeypatch.setattr(pool, "_actor", actor)

    async def ask() -> Any:
        await pool.open()
        if kind == "measure":
            return await pool.measure("t", "originals", b"edit", None)
        return await pool.edit(task(), 5)

    answer = asyncio.run(ask())
    assert answer[0] == ("measure" if kind == "measure" else "edit")
    assert answer[-1] == (None if kind == "measure" else 5)
    assert len(actor.made) == 2
    for options, arguments in actor.made:
        assert arguments == (*first, 3)
        assert options["name"].startswith(f"{kind}-")
        assert (options["num_cpus"], options["resources"], options["namespace"]) == (0.5, {"seat": 1}, "home")
