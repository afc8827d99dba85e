"""The edits of a benchmark: made on rollout actors, written whole to where the benchmark's script looks for them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from deploy.cluster import namespace
from deploy.evaluating.tasks import InstructionCheck
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.durable import write_whole
from rc_grpo.editor import lora as weights_of
from rc_grpo.editor.export import read_lora
from rc_grpo.evaluation.layout import Benchmark, Edits, Sample
from rc_grpo.images import encode_png
from rc_grpo.kept import Form, read_json
from rc_grpo.messages import CandidateGroup, PolicyVersion, RolloutSeeds
from rc_grpo.seeds import derive
from rollout_workers.pool import RolloutPool

MADE_BY = "made_by.json"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Evaluation:
    """One model on one benchmark.

    Attributes:
        config: whose editor, rollout pool and seed are used.
        benchmark: what to edit.
        edits: where the model's edits go.
        lora: folder of LoRA weights; None is the base model.
        steps: of the solver.
    """

    config: RunConfig
    benchmark: Benchmark
    edits: Edits
    lora: Path | None
    steps: int

    def made_by(self) -> dict[str, Any]:
        """Return what an edit depends on, to tell whether those that are there are of this model."""
        editor = self.config.editor
        kept = ("model", "revision", "dtype", "resolution", "guidance", "text_tokens")
        policy = "base" if self.lora is None else weights_of.digest(read_lora(editor.lora, self.lora))
        chosen = {name: getattr(editor, name) for name in kept}
        seed, rollout = self.config.seed, self.config.rollout
        of_rollout = {"steps": self.steps, "solver": rollout.solver, "fp8": rollout.fp8}
        return chosen | {"policy": policy, "seed": seed} | of_rollout


async def make_edits(
    evaluation: Evaluation, pending: Sequence[Sample], advance: Callable[[], object]
) -> dict[str, str]:
    """Edit samples on rollout actors and write each edit where the benchmark's script looks for it.

    The noise depends on the run's seed and the sample alone, so that an edit made again is the same.

    Returns:
        Sample -> why there is no edit of it.
    """
    config = evaluation.config
    tasks = load_tasks(evaluation.benchmark.source, "evaluate", InstructionCheck(config.editor))
    refused = {refusal.task_id: refusal.reason for refusal in tasks.refused}
    without: dict[str, str] = {}
    rollouts = RolloutPool(config.editor, config.rollout, config.seed, namespace(config.name))

    async def one(sample: Sample) -> None:
        try:
            path = evaluation.edits.path(sample)
            task = await asyncio.to_thread(tasks.find, sample.task_id)
            if task is None:
                raise ValueError(refused.get(sample.task_id, "it is not among the benchmark's usable tasks"))
            seeds = RolloutSeeds(derive(config.seed, "compbench", task.task_id))
            rollout = await rollouts.rollout(task, seeds, steps=evaluation.steps, keep_states=False)
            group = CandidateGroup.from_arrow(await rollout.group)
            await asyncio.to_thread(lambda: write_whole(path, encode_png(group.images[0])))
        except ValueError as error:
            without[sample.task_id] = gist(error)
        advance()

    try:
        await rollouts.open()
        await rollouts.adopt(*await _policy(evaluation, rollouts))
        await each(pending, 2 * config.rollout.workers, one)
    finally:
        rollouts.close()
    return without


def without_edit(evaluation: Evaluation) -> Iterator[Sample]:
    """Yield the samples of which there is no edit."""
    for sample in evaluation.benchmark.samples:
        try:
            if not evaluation.edits.path(sample).is_file():
                yield sample
        except ValueError:
            yield sample  # It has no path to have an edit at; `make_edits` says why.


def check_maker(evaluation: Evaluation) -> None:
    """Refuse to mix edits of two models in one folder; leave word who makes these."""
    wanted, found = evaluation.made_by(), maker_of(evaluation.edits)
    if found is None and evaluation.edits.any():
        raise ValueError(
            f"{evaluation.edits.folder} holds edits that this command did not make; "
            "measure them as they are (--no-edit), or name another --model"
        )
    if found is not None and found != wanted:
        different = ", ".join(
            f"{key} {found.get(key)!r} there, {wanted.get(key)!r} now"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)
        )
        raise ValueError(
            f"{evaluation.edits.folder} holds edits of another model or setting ({different}); "
            "name another --model, or remove the folder"
        )
    write_whole(evaluation.edits.folder / MADE_BY, json.dumps(wanted, indent=2) + "\n")


def maker_of(edits: Edits) -> dict[str, Any] | None:
    """Return what `check_maker` left word of, or None where somebody else made the edits."""
    path = edits.folder / MADE_BY
    return read_json(path, Form, f"remove it with the edits in {edits.folder}") if path.exists() else None


async def each(items: Iterable[Item], at_a_time: int, work: Callable[[Item], Awaitable[None]]) -> None:
    """Work through items, so many at a time, so that no more than these are in memory."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    await asyncio.gather(*(worker() for _ in range(at_a_time)))


def gist(error: ValueError) -> str:
    """Return what an error says, wherever it was raised."""
    # Of an actor's error Ray shows the remote traceback; what it says is in its cause.
    return str(error.cause if isinstance(error, RayTaskError) else error).strip()


async def _policy(evaluation: Evaluation, rollouts: RolloutPool) -> tuple[PolicyVersion, Any]:
    if evaluation.lora is None:
        return await rollouts.untrained()
    version, packed = weights_of.pack(1, read_lora(evaluation.config.editor.lora, evaluation.lora))
    return version, ray.put(packed)
