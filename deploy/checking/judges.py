"""The judges of a run: are they there, and what do they say to one real question."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deploy.checking.finding import Finding, finding
from deploy.errors import mendable
from deploy.evaluating.preflight import check_judges
from rc_grpo.config import AnyJudgeConfig, EditScoreConfig, RunConfig, ServedConfig
from rc_grpo.data import load_tasks
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from reward_service.judge import JudgeUnavailableError
from reward_service.probing import probe, sample, verdicts


def check_servers(config: RunConfig) -> Iterator[Finding]:
    """Yield what attached servers say to a probe; nothing is asked of a model."""
    for found in asyncio.run(probe(config.reward.judges)):
        subject = f"reward.judges.{found.judge}"
        match found.state:
            case "serves":
                yield Finding(subject, "fine", f"{found.url} serves the model")
            case "loads":
                yield Finding(subject, "note", f"{found.said}; a run would wait for it")
            case "unusable":
                yield Finding(subject, "fault", found.said)


def check_answers(config: RunConfig, *, start_servers: bool) -> Iterator[Finding]:
    """Yield what each judge that is there says of one edit: the untouched source of the first training task.

    Args:
        config: of the run.
        start_servers: a judge whose server is started by the run has one started here, is asked, and ends it.
    """
    there = finding("reward", lambda: _models_are_there(config))
    yield there
    servers = list(check_servers(config))
    yield from servers
    unusable = {found.subject for found in servers if found.state != "fine"}
    if there.state == "fault" or config.loop.feed is not None:
        return
    try:
        task = load_tasks(config.data.train)[0]
    except ValueError:
        return  # Of the data.
    for name, judge in config.reward.judges.items():
        subject = f"reward.judges.{name}"
        if (unasked := not_asked(name, judge, start_servers=start_servers)) is not None:
            yield unasked
        elif subject not in unusable:
            yield _answer(config, name, task)


def not_asked(name: str, judge: AnyJudgeConfig, *, start_servers: bool) -> Finding | None:
    """Return that a judge is not asked, where only the run starts its server and none is to be started here."""
    if not isinstance(judge, ServedConfig) or judge.urls or start_servers:
        return None
    said = "its server is started by the run; nothing was asked of it (--start-servers starts one here and asks)"
    return Finding(f"reward.judges.{name}", "note", said)


def _models_are_there(config: RunConfig) -> str:
    check_judges(config)
    return f"judges: {', '.join(config.reward.judges)}"


def _answer(config: RunConfig, name: str, task: EditTask) -> Finding:
    judge, subject = config.reward.judges[name], f"reward.judges.{name}"
    source = decode_rgb(task.source)
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        if isinstance(judge, EditScoreConfig):
            try:
                said = asyncio.run(sample(judge, task, source, logs))
            except (JudgeUnavailableError, *mendable()) as error:
                return Finding(subject, "fault", f"asked about two images: {error}")
            if said.fault is not None:
                return Finding(subject, "note", f"its answer does not parse ({said.fault}): {said.raw}")
            return Finding(subject, "fine", f"of the untouched source of {task.task_id} it says: {said.raw}")
        images = np.stack([source, 255 - source]) if judge.relative else source[None]
        try:
            verdict, *_ = asyncio.run(verdicts(judge, task, images, logs))
        except (JudgeUnavailableError, *mendable()) as error:
            return Finding(subject, "fault", f"asked about the untouched source of {task.task_id}: {error}")
    if np.isnan(verdict.reward):
        return Finding(subject, "fault", f"it cannot score {task.task_id}: {verdict.reason}")
    beside = " beside its negative" if judge.relative else ""
    return Finding(subject, "fine", f"of the untouched source of {task.task_id}{beside} it says: {verdict.reward:.3f}")
