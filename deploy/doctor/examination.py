"""``rc-grpo doctor``: before GPUs are spent, is what trains the editor that people run, and does it what is asked."""

from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path

from rich.console import Console

from deploy.checking.finding import Finding, finding, in_json, show, tried
from deploy.checking.judges import not_asked
from deploy.doctor import checks
from deploy.doctor.stock import stock_edit
from deploy.errors import mendable
from deploy.evaluating.preflight import check_editor
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.durable import write_whole
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.fast.frozen_fp8 import quantise_frozen
from rc_grpo.editor.geometry import resize_image
from rc_grpo.editor.loading import load_denoiser, load_pipeline, load_rollout_editor
from rc_grpo.editor.registry import find
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.seeds import derive
from rollout_workers.rollout import PreparedTask, prepare

LOOKED_AT = 32
"""Tasks among which one with references is looked for."""


def examine(config: RunConfig, *, steps: int, start_servers: bool = False) -> Iterator[Finding]:
    """Yield what is found, one check after the other; models are loaded and let go on the way.

    Args:
        config: resolved and validated.
        steps: of the compared pictures; two or more.
        start_servers: a judge whose server is started by the run has one started here, is asked, and ends it.
    """
    there = finding("editor", lambda: _editor(config))
    yield there
    if there.state == "fault":
        return
    task = _task(config)
    yield from _beside_the_stock_pipeline(config, task, steps)
    checks.let_go()
    yield from _rolling_out(config, task)
    for name, judge in config.reward.judges.items():
        yield not_asked(name, judge, start_servers=start_servers) or checks.preference(name, judge, task)


def show_examination(
    config: RunConfig, console: Console, out: Path | None, *, steps: int, start_servers: bool, machine_readable: bool
) -> bool:
    """Print what `examine` finds, as a table or as JSON, write it where asked; tell whether nothing is in the way."""
    with console.status("examining ..."):
        found = list(examine(config, steps=steps, start_servers=start_servers))
    if out is not None:
        write_whole(out, in_json(found) + "\n")
    return show(found, console, machine_readable=machine_readable)


def _beside_the_stock_pipeline(config: RunConfig, task: EditTask, steps: int) -> Iterator[Finding]:
    editor, family = config.editor, find(config.editor)
    try:
        pipeline = load_pipeline(editor)
        codec, body = family.codec(pipeline, editor, offload=False), family.body(pipeline.transformer, editor)
        conditions = codec.encode(task)
        fitting = resize_image(decode_rgb(task.source), conditions.height, conditions.width)
        references = [decode_rgb(image) for image in task.references]
        seed = derive("doctor", "picture") % 2**32
        stocks = {}
        for guided in {editor.guidance: editor, config.evaluated.guidance: config.evaluated}.values():
            # Whole passes beside whole passes, which have the same bits; what sharing a prefix changes is asked apart.
            whole = guided.model_copy(update={"prefix": "none"})
            stocks[guided.guidance] = stock_edit(
                pipeline, whole, fitting, task.instruction, *references, steps=steps, seed=seed
            )
        trained = Editor(body, codec, editor, config.seed)
    except mendable() as error:
        yield Finding("picture", "fault", str(error))
        return
    for guidance, stock in stocks.items():
        yield tried("picture", lambda g=guidance, s=stock: checks.picture(trained, conditions, s, g))  # type: ignore[misc]
    yield tried("LoRA", lambda: checks.bound(trained))


def _rolling_out(config: RunConfig, task: EditTask) -> Iterator[Finding]:
    prepared = yield from _beside_the_learner(config, task)
    checks.let_go()
    if prepared is not None:
        yield tried("float8", lambda: checks.ranks_in_float8(config, prepared, task))


def _beside_the_learner(config: RunConfig, task: EditTask) -> Generator[Finding, None, PreparedTask | None]:
    try:
        actor = load_rollout_editor(config.editor, config.rollout, config.seed)
        prepared = prepare(actor, task, config.rollout)
        learner = load_denoiser(config.editor, config.seed)
        if config.learner.fp8:
            quantise_frozen(learner.body)
    except mendable() as error:
        yield Finding("rollout", "fault", str(error))
        return None
    yield tried("ratio on policy", lambda: checks.ratio(config, actor, learner, prepared, task))
    yield tried("recorder", lambda: checks.recorder(config, actor, prepared))
    if config.editor.prefix == "shared":
        yield tried("prefix", lambda: checks.prefix(actor, prepared))
    return prepared


def _task(config: RunConfig) -> EditTask:
    """Return the first task, or one of the first that has references, where the editor is to take some."""
    tasks = load_tasks(config.data.heldout or config.data.train)
    several = (task for task in islice(tasks, LOOKED_AT if config.editor.sources > 1 else 0) if task.references)
    return next(several, None) or tasks[0]


def _editor(config: RunConfig) -> str:
    check_editor(config)
    return f"{config.editor.model} of the family {find(config.editor).name}"
