"""``rc-grpo evaluate --compbench``: CompBench's edits, made and measured on actors, whatever is killed meanwhile.

An edit is there whole or not at all, under the path where the benchmark's script looks for it; a measurement is a line
in a journal. A run does what is missing of either, so that any run is a resumed one.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table as RichTable

from deploy.cluster import connect, namespace
from deploy.evaluating.compbench_actor import MeasurerPool, available
from deploy.evaluating.compbench_edits import (
    Evaluation,
    check_maker,
    each,
    gist,
    make_edits,
    maker_of,
    resized_of,
    without_edit,
)
from deploy.evaluating.preflight import check_editor
from deploy.records.best import name_of_lora
from deploy.records.folder import RunBusyError
from deploy.records.provenance import provenance
from deploy.watching.progress import Progress
from rc_grpo.config import RunConfig
from rc_grpo.durable import write_whole
from rc_grpo.editor.export import check_lora
from rc_grpo.editor.reference.editor import Reference
from rc_grpo.evaluation.compbench.comparison import SUMMARY, Comparison
from rc_grpo.evaluation.compbench.corrected import PSNR_CAP
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, Sample
from rc_grpo.evaluation.compbench.measuring import Measured, MeasureSettings
from rc_grpo.evaluation.compbench.paper import SOURCE
from rc_grpo.evaluation.compbench.scores import METRICS
from rc_grpo.evaluation.compbench.table import Table, tabulate
from rc_grpo.evaluation.foreign import Brought, Foreign
from rc_grpo.evaluation.journal import Journal

MEASURES, TABLE, COMPARISON = "measures.jsonl", "table.md", "comparison.md"
LISTED_ON_SCREEN = 10
_NOT_MADE = "there is no edit, and none was asked for (--no-edit)"


def run_compbench(
    config: RunConfig,
    folder: Path,
    lora: Path | None,
    out: Path | None,
    console: Console,
    *,
    model: str | None = None,
    settings: MeasureSettings | None = None,
    edit: bool = True,
    results: Path | None = None,
    reference: Reference | None = None,
    foreign: Path | None = None,
) -> Table:
    """Edit every sample of a benchmark that has no edit yet, measure what is not measured yet, print and write a table.

    Args:
        config: whose editor, rollout pool, ``evaluation.steps`` and seed are used.
        folder: CompBench's folder or the hub's parquet.
        lora: folder of LoRA weights; None is the base model.
        out: the summary is also written here; it is in the model's folder in any case.
        console: where to show progress.
        model: name of the model's folder; else that of the LoRA's run, or of the editor.
        settings: which models measure.
        edit: False measures what is there, whoever made it.
        results: folder of all models' edits; else ``editing_results`` beside the tasks.
        reference: another editor, whose pipeline makes the edits instead.
        foreign: folder of edits that another program made, which are measured instead.

    Raises:
        ValueError: the edits that are there were made by another model, a model for measuring is missing, or the LoRA
            is not for the editor.
        RunBusyError: another process evaluates this model.
    """
    benchmark = Benchmark.open(folder)
    config = config.model_copy(update={"editor": config.evaluated})
    if lora is not None and edit:
        check_lora(config.editor, lora)
    name = model or _name(config, lora, reference, foreign)
    edits = Edits(results or benchmark.results, name)
    origin = reference if foreign is None else _opened(foreign, edits, benchmark)
    evaluation = Evaluation(config, benchmark, edits, lora, config.evaluation.steps, origin)
    settings, left_out = available(settings or MeasureSettings())
    said = [*left_out, *([] if reference is None else [reference.in_words])]
    for sentence in said:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    with _claimed(edits.folder), Progress(console) as progress:
        pending = list(without_edit(evaluation)) if edit and foreign is None else []
        if edit:
            if origin is None:
                check_editor(config)
            check_maker(evaluation)
        brought = _bring_in(evaluation, progress)
        connect(_rollouts_alone(config))
        try:
            reasons = {} if brought is None else brought.reasons
            table = asyncio.run(_evaluate(evaluation, settings, pending, reasons, progress))
        finally:
            ray.shutdown()
    summary = provenance() | {
        "benchmark": str(folder.resolve()),
        "model": name,
        "made_by": maker_of(edits),
        "pipeline": None if reference is None else reference.as_json(),
        "resized": resized_of(edits),
        "brought_in": None if brought is None else brought.as_json(),
        "measured_with": settings.model_dump() | {"left_out": left_out, "psnr_cap_of_corrected_db": PSNR_CAP},
    } | table.as_json()  # fmt: skip
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    for path in filter(None, (edits.folder / SUMMARY, out)):
        write_whole(path, text)
    write_whole(edits.folder / TABLE, table.markdown())
    comparison = Comparison.read(edits.root, name)
    write_whole(edits.folder / COMPARISON, comparison.markdown())
    _print(table, name, console)
    _print_notes(summary["resized"], brought, comparison, console)
    return table


async def measure_edits(
    evaluation: Evaluation,
    settings: MeasureSettings,
    samples: Sequence[Sample],
    journal: Journal,
    advance: Callable[[], object],
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure edits on actors, a line in the journal for each as soon as it is known.

    A failure is not written: it is tried again by the next run, when somebody may have mended it.

    Returns:
        What was measured of each sample, the journal's included; and why some could not be.
    """
    config = evaluation.config
    measured, failed = _known(evaluation, settings, samples, journal), dict[str, str]()
    pending = [sample for sample in samples if sample.task_id not in measured]
    for _ in range(len(samples) - len(pending)):
        advance()
    if not pending:
        return measured, failed
    pool = MeasurerPool(settings, config.rollout, namespace(config.name))

    async def one(sample: Sample) -> None:
        try:
            path = evaluation.edits.path(sample)
            identity = _identity(path)
            originals, edited = await asyncio.to_thread(
                lambda: (evaluation.benchmark.originals(sample), path.read_bytes())
            )
            result = await pool.measure(sample.task_id, originals, edited, sample.caption)
        except ValueError as error:
            failed[sample.task_id] = gist(error)
        else:
            measured[sample.task_id] = result
            record = {"task_id": sample.task_id, "settings": settings.digest, "edit": identity}
            journal.append(record | result.as_json())
        advance()

    try:
        await pool.open()
        await each(pending, 2 * config.rollout.workers, one)
    finally:
        pool.close()
    return measured, failed


def _opened(folder: Path, edits: Edits, benchmark: Benchmark) -> Foreign:
    """Return a folder of edits; one of this command's own is measured where it is."""
    if folder.resolve().is_relative_to(edits.folder.resolve()):
        raise ValueError(
            f"{folder} is where the edits of {edits.model} are measured; --no-edit --model {edits.model} does that, "
            "without --edits"
        )
    return Foreign.open(folder, benchmark.samples)


def _bring_in(evaluation: Evaluation, progress: Progress) -> Brought | None:
    """Copy the edits that another program made, where that is asked for."""
    match evaluation.origin:
        case Foreign() as foreign:
            samples = evaluation.benchmark.samples
            with progress.phase(f"edits in {foreign.folder}", len(samples)) as advance:
                return foreign.bring_in(evaluation.benchmark, evaluation.edits, advance)
    return None


async def _evaluate(
    evaluation: Evaluation,
    settings: MeasureSettings,
    pending: Sequence[Sample],
    reasons: dict[str, str],
    progress: Progress,
) -> Table:
    samples = evaluation.benchmark.samples
    if pending:
        progress.say(f"{len(pending)} of {len(samples)} samples have no edit yet")
        with progress.phase(f"edits of {evaluation.edits.model}", len(pending)) as advance:
            reasons = await make_edits(evaluation, pending, advance)
    without = {sample.task_id for sample in without_edit(evaluation)}
    missing = {name: reasons.get(name, _NOT_MADE) for name in sorted(without)}
    there = [sample for sample in samples if sample.task_id not in without]
    with (
        Journal.opened(evaluation.edits.folder / MEASURES) as journal,
        progress.phase(f"measures of {evaluation.edits.model}", len(there)) as advance,
    ):
        measured, failed = await measure_edits(evaluation, settings, there, journal, advance)
    return tabulate(_by_family(samples), measured, missing, failed)


def _known(
    evaluation: Evaluation, settings: MeasureSettings, samples: Sequence[Sample], journal: Journal
) -> dict[str, Measured]:
    """Return what the journal says about the edits that are there now, measured with these settings."""
    records = {record["task_id"]: record for record in journal.records if record["settings"] == settings.digest}
    return {
        sample.task_id: Measured.from_json(record)
        for sample in samples
        if (record := records.get(sample.task_id)) and record["edit"] == _identity(evaluation.edits.path(sample))
    }


def _identity(path: Path) -> list[int]:
    """Return what changes with a file, so that an edit that was put in another's place is measured anew."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _by_family(samples: Iterable[Sample]) -> dict[str, list[str]]:
    by_family: dict[str, list[str]] = {}
    for sample in samples:
        by_family.setdefault(sample.family, []).append(sample.task_id)
    return by_family


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise RunBusyError(f"another process evaluates {folder}; wait for it or end it first") from error


def _name(config: RunConfig, lora: Path | None, reference: Reference | None, foreign: Path | None) -> str:
    if foreign is not None:
        return foreign.resolve().name
    if reference is not None:
        return Path(reference.source.name).resolve().name
    if lora is None:
        return Path(config.editor.model).name
    return name_of_lora(lora)


def _rollouts_alone(config: RunConfig) -> RunConfig:
    """Return the configuration without what is not started here, so that the cluster need not hold it."""
    return config.model_copy(
        update={
            "loop": config.loop.model_copy(update={"learn": False, "feed": None}),
            "reward": config.reward.model_copy(update={"judges": {}}),
        }
    )


def _print(table: Table, model: str, console: Console) -> None:
    drawn = RichTable(title=f"CompBench, {model}; corrected PSNR is at most {PSNR_CAP:g} dB")
    for column in ("family", "measured", "metrics", *METRICS.values()):
        drawn.add_column(column, justify="right" if column in METRICS.values() else "left")
    for row in table.rows():
        drawn.add_row(*row, end_section=row[2] == "corrected")
    console.print(drawn)
    if not table.whole:
        console.print("The benchmark is not whole: these means are not comparable with published ones.")
    for what, listed in (("no edit", table.missing), ("not measurable", table.failed)):
        for name, reason in list(listed.items())[:LISTED_ON_SCREEN]:
            console.print(f"{what}: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
        if len(listed) > LISTED_ON_SCREEN:
            console.print(f"{what}: {len(listed) - LISTED_ON_SCREEN} more, all in {SUMMARY}")


def _print_notes(resized: dict[str, str], brought: Brought | None, comparison: Comparison, console: Console) -> None:
    """Say what was made fit, and show all editors of this benchmark where there is more than one row."""
    said = [*([] if brought is None else brought.in_words()), *comparison.remarks()]
    if resized:
        first = next(iter(resized.items()))
        said.insert(0, f"{len(resized)} edits came in another size and were resized: {' '.join(first)}, ...")
    if len(comparison.editors) > 1:
        drawn = RichTable(title=f"Editors, official means; published is {SOURCE}")
        for column in ("editor", "origin", *METRICS.values()):
            drawn.add_column(column, justify="right" if column in METRICS.values() else "left")
        for row in comparison.rows():
            drawn.add_row(*row, end_section=row[1] == "published")
        console.print(drawn)
    for sentence in said:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
