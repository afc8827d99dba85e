"""``rc-grpo evaluate``: held-out edits scored by the run's judges, or CompBench's edits made and measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from deploy.evaluating.assessment import run_assessment
from deploy.evaluating.compbench import run_compbench
from deploy.outputs import check_apart, check_file, check_picture
from rc_grpo.config import ConfigError, RunConfig
from rc_grpo.editor.reference.editor import Reference
from rc_grpo.editor.reference.terms import Options
from rc_grpo.evaluation.compbench.layout import write_benchmark
from rc_grpo.evaluation.compbench.measuring import MeasureSettings
from rc_grpo.pocket.world import PocketWorld

NO_CLIP = "none"


@dataclass(frozen=True)
class BenchmarkRequest:
    """CompBench is asked for.

    Attributes:
        folder: its own, or the hub's parquet.
        model: name of the edits' folder; None for that of the LoRA's run, or of the editor.
        clip: folder or hub id of a CLIP model, or `NO_CLIP`.
        edit: make what edits are missing.
        pocket: first write so many held-out pocket tasks there, unless there are some.
        pipeline: another editor that makes the edits: a folder or hub id of a diffusers pipeline.
        options: how it is run, see `Options`; None is as its makers have it.
        foreign: folder of edits that another program made.
    """

    folder: Path
    model: str | None
    clip: str
    edit: bool
    pocket: int | None
    pipeline: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    foreign: Path | None = None


def run_evaluation(
    config: RunConfig,
    lora: Path | None,
    out: Path | None,
    sheet: Path | None,
    benchmark: BenchmarkRequest | None,
    console: Console,
) -> None:
    """Evaluate the base model and, if given, a LoRA beside it; or either of them on CompBench.

    Args:
        config: of the run whose data, judges and editor are used.
        lora: folder of LoRA weights.
        out: figures as JSON.
        sheet: picture of some edits; of held-out tasks alone.
        benchmark: CompBench instead.
        console: to print on.

    Raises:
        ValueError: a file cannot be written, or the evaluation cannot be made.
    """
    check_file(out, "--out", example="figures.json")
    check_picture(sheet, "--sheet")
    check_apart(out=out, sheet=sheet)
    if benchmark is not None and sheet is not None:
        raise ConfigError("--sheet draws held-out edits; --compbench leaves each edit as a picture of its own")
    reference = None if benchmark is None else _reference(benchmark, lora)
    if benchmark is None:
        run_assessment(config, lora, out, sheet, console)
        return
    if benchmark.pocket is not None and not (benchmark.folder / "tasks").exists():
        write_benchmark(benchmark.folder, PocketWorld("heldout", benchmark.pocket))
    settings = MeasureSettings(clip=None if benchmark.clip == NO_CLIP else benchmark.clip)
    run_compbench(
        config,
        benchmark.folder,
        lora,
        out,
        console,
        model=benchmark.model,
        settings=settings,
        edit=benchmark.edit,
        reference=reference,
        foreign=benchmark.foreign,
    )


def _reference(benchmark: BenchmarkRequest, lora: Path | None) -> Reference | None:
    """Return the other editor that is asked for, once it is clear that nothing else is.

    Raises:
        ConfigError: the options contradict each other, or are not what a pipeline can be told.
        rc_grpo.editor.reference.source.PipelineError: there is no such pipeline, or it is no editor.
    """
    asked = {
        "--lora": lora is not None,
        "--no-edit": not benchmark.edit,
        "--pipeline": benchmark.pipeline is not None,
        "--edits": benchmark.foreign is not None,
    }
    if (benchmark.pipeline or benchmark.foreign) and sum(asked.values()) > 1:
        given = " and ".join(option for option, there in asked.items() if there)
        raise ConfigError(f"{given} name different makers of the edits; give one, and evaluate the other by itself")
    options = {name: value for name, value in benchmark.options.items() if value is not None}
    if benchmark.pipeline is None:
        if options:
            given = ", ".join(f"--{name.replace('_', '-')}" for name in options)
            raise ConfigError(
                f"{given} is of a --pipeline; the configuration's own editor has --set evaluation.steps=N and "
                "evaluation.guidance"
            )
        return None
    try:
        return Reference.open(benchmark.pipeline, Options(**options))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        named = "--" + str(problem["loc"][0] if problem["loc"] else "").replace("_", "-")
        raise ConfigError(f"{named}: {problem['msg']}") from error
