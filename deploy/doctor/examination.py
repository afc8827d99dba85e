"""``rc-grpo doctor``: before GPUs are spent, is what trains the editor that people run, and does it what is asked."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from deploy.checking.finding import Finding, as_json, draw, faults, finding
from deploy.doctor import checks
from deploy.doctor.stock import stock_edit
from deploy.errors import mendable
from deploy.evaluating.preflight import check_editor
from rc_grpo.config import EditScoreConfig, RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.durable import write_whole
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.geometry import editing_size, resize_image
from rc_grpo.editor.loading import load_denoiser, load_pipeline, load_rollout_editor
from rc_grpo.editor.registry import find
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.seeds import derive
from rollout_workers.rollout import prepare


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
    task = load_tasks(config.data.heldout or config.data.train)[0]
    yield from _beside_the_stock_pipeline(config, task, steps)
    yield from _rolling_out(config, task)
    for name, judge in config.reward.judges.items():
        if isinstance(judge, EditScoreConfig) and not judge.urls and not start_servers:
            said = (
                "its server is started by the run; nothing was asked of it (--start-servers starts one here and asks)"
            )
            yield Finding(f"reward.judges.{name}", "note", said)
        else:
            yield _tried(f"reward.judges.{name}", lambda name=name: checks.preference(name, config, task))  # type: ignore[misc]


def show_examination(
    config: RunConfig, console: Console, out: Path | None, *, steps: int, start_servers: bool, machine_readable: bool
) -> bool:
    """Print what `examine` finds, as a table or as JSON, write it where asked; tell whether nothing is in the way."""
    with console.status("examining ..."):
        found = list(examine(config, steps=steps, start_servers=start_servers))
    text = json.dumps(as_json(found), indent=2)
    if machine_readable:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(draw(found))
    if out is not None:
        write_whole(out, text + "\n")
    return not any(faults(found))


def _beside_the_stock_pipeline(config: RunConfig, task: EditTask, steps: int) -> Iterator[Finding]:
    editor, family = config.editor, find(config.editor)
    try:
        pipeline = load_pipeline(editor)
        codec, body = family.codec(pipeline, editor, offload=False), family.body(pipeline.transformer, editor)
        conditions = codec.encode(task)
        source = decode_rgb(task.source)
        fitting = resize_image(source, *editing_size(source.shape[0], source.shape[1], editor.resolution, codec.token))
        tokens, seed = body.latent_shape(conditions)[0], derive("doctor", "picture") % 2**32
        stocks = {}
        for guided in {editor.guidance: editor, config.evaluated.guidance: config.evaluated}.values():
            stocks[guided.guidance] = stock_edit(
                pipeline, guided, fitting, task.instruction, tokens, steps=steps, seed=seed
            )
        trained = Editor(body, codec, editor, config.seed)
    except mendable() as error:
        yield Finding("picture", "fault", str(error))
        return
    for guidance, stock in stocks.items():
        yield _tried("picture", lambda g=guidance, s=stock: checks.picture(trained, conditions, s, g))  # type: ignore[misc]
    yield _tried("LoRA", lambda: checks.bound(trained))


def _rolling_out(config: RunConfig, task: EditTask) -> Iterator[Finding]:
    try:
        actor = load_rollout_editor(config.editor, config.rollout, config.seed)
        prepared = prepare(actor, task, config.rollout)
        learner = load_denoiser(config.editor, config.seed)
    except mendable() as error:
        yield Finding("rollout", "fault", str(error))
        return
    yield _tried("ratio on policy", lambda: checks.ratio(config, actor, learner, prepared, task))
    yield _tried("recorder", lambda: checks.recorder(config, actor, prepared))
    yield _tried("float8", lambda: checks.ranks_in_float8(config, actor, prepared, task))


def _tried(subject: str, look: Callable[[], Finding]) -> Finding:
    """Return what a check finds; an error that the user can mend is a fault."""
    try:
        return look()
    except mendable() as error:
        return Finding(subject, "fault", str(error))


def _editor(config: RunConfig) -> str:
    check_editor(config)
    return f"{config.editor.model} of the family {find(config.editor).name}"
