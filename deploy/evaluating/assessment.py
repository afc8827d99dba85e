"""``rc-grpo evaluate``: held-out reward and background metrics of the base model, and of a LoRA beside it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from rich.console import Console
from rich.table import Table

from deploy.cluster import beside_the_driver, connect, namespace
from deploy.evaluating.heldout import evaluate
from deploy.evaluating.preflight import check_editor, check_judges
from deploy.evaluating.tasks import heldout_tasks
from deploy.records.best import name_of_lora
from deploy.records.contact_sheet import contact_sheet, task_row
from deploy.records.provenance import provenance
from deploy.watching.progress import Progress
from rc_grpo.config import RunConfig
from rc_grpo.durable import write_whole
from rc_grpo.editor import lora
from rc_grpo.editor.export import check_lora
from rc_grpo.editor.loading import load_denoiser
from rc_grpo.evaluation.background import background_metrics
from rc_grpo.evaluation.gains import HeldOut, PairedGain
from rc_grpo.images import Pixels
from rc_grpo.messages import CandidateGroup, EditTask
from rc_grpo.waiting import Waits
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool

TASKS_ON_A_SHEET = 10


class Beholder:
    """Looks at edits where they are, so that the driver does not hold them. One process: its calls take turns.

    Args:
        deadline_s: edits must have been read by then.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    def measure(self, tasks: Sequence[EditTask], groups: Sequence[Any]) -> dict[str, float]:
        """Return the mean background metrics of one edit of each task."""
        measured = [background_metrics(task, image) for task, image in zip(tasks, self._edits(groups), strict=True)]
        return {name: float(np.mean([values[name] for values in measured])) for name in measured[0]}

    def draw(
        self, tasks: Sequence[EditTask], groups: dict[str, Sequence[Any]], scores: dict[str, list[float]], path: Path
    ) -> None:
        """Draw source, mask, target and each policy's edit of some tasks."""
        images = {policy: self._edits(references) for policy, references in groups.items()}
        rows = [
            task_row(task, [(images[policy][index], f"{policy} {scores[policy][index]:.3f}") for policy in images])
            for index, task in enumerate(tasks)
        ]
        contact_sheet(rows).save(path)

    def _edits(self, groups: Sequence[Any]) -> list[Pixels]:
        batches = ray.get(list(groups), timeout=self._deadline_s)
        return [CandidateGroup.from_arrow(batch).images[0] for batch in batches]


BeholderActor = ray.remote(Beholder)


def run_assessment(
    config: RunConfig, folder: Path | None, out: Path | None, sheet: Path | None, console: Console
) -> None:
    """Evaluate the base model and, if given, the LoRA in ``folder``; print a table, write JSON and a sheet of edits."""
    if config.data.heldout is None or not config.evaluation.tasks:
        raise ValueError("evaluation needs data.heldout and evaluation.tasks > 0")
    check_editor(config)
    check_judges(config)
    tasks = heldout_tasks(config)
    policies = {"base": lora.copied(load_denoiser(config.editor, config.seed).policy.weights())}
    if folder is not None:
        policies[name_of_lora(folder)] = check_lora(config.editor, folder)
    connect(config)
    try:
        with Progress(console) as progress:
            results = asyncio.run(_assess(config, policies, tasks, progress, sheet))
    finally:
        ray.shutdown()
    _print(results, console)
    if out is not None:
        figures = {name: held_out.metrics() | background for name, (held_out, background) in results.items()}
        write_whole(out, json.dumps(provenance() | {"tasks": len(tasks), "figures": figures}, indent=2) + "\n")


async def _assess(
    config: RunConfig,
    policies: dict[str, dict[str, Any]],
    tasks: Sequence[EditTask],
    progress: Progress,
    sheet: Path | None,
) -> dict[str, tuple[HeldOut, dict[str, float]]]:
    home = namespace(config.name)
    rollouts = RolloutPool(config.editor, config.rollout, config.seed, home)
    judges = JudgePanel(config.reward, home)
    waits = Waits()
    results: dict[str, tuple[HeldOut, dict[str, float]]] = {}
    edits: dict[str, list[Any]] = {}
    deadline = config.output.record_deadline_s
    beholder = BeholderActor.options(name="beholder", namespace=home, **beside_the_driver()).remote(deadline)
    try:
        await asyncio.gather(rollouts.open(), judges.open())
        for number, (policy, weights) in enumerate(policies.items()):
            version, packed = lora.pack(number, weights)
            await rollouts.adopt(version, ray.put(packed))
            with progress.phase(policy, len(tasks)) as advance:
                held_out, scored = await evaluate(tasks, rollouts, judges, config.evaluation, config.seed, advance)
            measuring = beholder.measure.remote(list(tasks), [item.group for item in scored])
            background = await waits.within(deadline, measuring, "the evaluation", f"the measures of {policy}")
            results[policy] = held_out, background
            edits[policy] = [item.group for item in scored[:TASKS_ON_A_SHEET]]
        if sheet is not None:
            scores = {policy: held_out.reward.tolist() for policy, (held_out, _) in results.items()}
            drawing = beholder.draw.remote(tasks[:TASKS_ON_A_SHEET], edits, scores, sheet.resolve())
            await waits.within(deadline, drawing, "the evaluation", f"{sheet} to be drawn")
    finally:
        await judges.drain()
        rollouts.close()
        judges.close()
        ray.kill(beholder)
    return results


def _print(results: dict[str, tuple[HeldOut, dict[str, float]]], console: Console) -> None:
    table = Table(title="Held-out edits")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    columns = [held_out.metrics() | background for held_out, background in results.values()]
    for metric in columns[0]:
        table.add_row(metric, *(f"{column[metric]:.4f}" for column in columns))
    console.print(table)
    if len(results) > 1:
        first, *_, last = (held_out for held_out, _ in results.values())
        gains = PairedGain.of_each_judge(first, last)
        console.print_json(data={name: gain.as_dict() for name, gain in gains.items()})
