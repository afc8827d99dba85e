"""The edits of a benchmark: made on actors, written whole to where the benchmark's script looks for them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
from ray.exceptions import RayTaskError

from deploy.cluster import namespace
from deploy.evaluating.compbench_actor import ReferencePool
from deploy.evaluating.tasks import InstructionCheck
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.durable import write_whole
from rc_grpo.editor import lora as weights_of
from rc_grpo.editor.export import read_lora
from rc_grpo.editor.reference.editor import Edited, EditFailedError, Reference
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, Sample
from rc_grpo.evaluation.foreign import Foreign
from rc_grpo.evaluation.journal import Journal
from rc_grpo.images import encode_png
from rc_grpo.kept import Form, read_json
from rc_grpo.messages import CandidateGroup, EditTask, PolicyVersion, RolloutSeeds
from rc_grpo.pool import PoolError
from rc_grpo.seeds import derive
from rollout_workers.pool import RolloutPool

MADE_BY, RESIZED = "made_by.json", "resized.jsonl"
GIVE_UP_AFTER = 3
"""Tasks on which another editor's pipeline fails, with none that it has edited, before no more is tried."""
Item = TypeVar("Item")


class Editing(Protocol):
    """Actors that edit tasks."""

    async def open(self) -> None:
        """Start them."""
        ...

    async def edit(self, task: EditTask, seed: int) -> bytes:
        """Return the edit of a task as PNG.

        Raises:
            ValueError: there is none, and why.
        """
        ...

    def close(self) -> None:
        """Stop them."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """One model on one benchmark.

    Attributes:
        config: whose editor, rollout pool and seed are used.
        benchmark: what to edit.
        edits: where the model's edits go.
        lora: folder of LoRA weights; None is the base model.
        steps: of the solver.
        origin: who makes the edits instead: another editor's pipeline, or a program that has made them.
    """

    config: RunConfig
    benchmark: Benchmark
    edits: Edits
    lora: Path | None
    steps: int
    origin: Reference | Foreign | None = None

    def made_by(self) -> dict[str, Any]:
        """Return what an edit depends on, to tell whether those that are there are of this model."""
        editor = self.config.editor
        match self.origin:
            case Foreign(folder):
                return {"edits_of": str(folder.resolve())}
            case Reference() as reference:
                return reference.made_by(editor, self.config.seed)
        kept = ("model", "revision", "dtype", "resolution", "guidance", "text_tokens")
        policy = "base" if self.lora is None else weights_of.digest(read_lora(editor.lora, self.lora))
        chosen = {name: getattr(editor, name) for name in kept}
        seed, rollout = self.config.seed, self.config.rollout
        of_rollout = {"steps": self.steps, "solver": rollout.solver, "fp8": rollout.fp8}
        return chosen | {"policy": policy, "seed": seed} | of_rollout


async def make_edits(
    evaluation: Evaluation, pending: Sequence[Sample], advance: Callable[[], object]
) -> dict[str, str]:
    """Edit samples on actors and write each edit where the benchmark's script looks for it.

    The noise depends on the run's seed and the sample alone, so that an edit made again is the same.

    Returns:
        Sample -> why there is no edit of it.

    Raises:
        PoolError: another editor's pipeline fails on whatever it is given.
    """
    config = evaluation.config
    # What another editor makes of a long instruction is its own business.
    objection = InstructionCheck(config.editor) if evaluation.origin is None else None
    tasks = load_tasks(evaluation.benchmark.source, "evaluate", objection)
    refused = {refusal.task_id: refusal.reason for refusal in tasks.refused}
    without: dict[str, str] = {}

    async def one(sample: Sample) -> None:
        try:
            path = evaluation.edits.path(sample)
            task = await asyncio.to_thread(tasks.find, sample.task_id)
            if task is None:
                raise ValueError(refused.get(sample.task_id, "it is not among the benchmark's usable tasks"))
            edit = await editing.edit(task, derive(config.seed, "compbench", task.task_id))
            await asyncio.to_thread(write_whole, path, edit)
        except ValueError as error:
            without[sample.task_id] = gist(error)
        advance()

    with _editing(evaluation) as editing:
        try:
            await editing.open()
            await each(pending, 2 * config.rollout.workers, one)
        finally:
            editing.close()
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


@contextmanager
def _editing(evaluation: Evaluation) -> Iterator[Editing]:
    """Return who edits; for another editor's pipeline with a journal of what it gave in another size."""
    if not isinstance(evaluation.origin, Reference):
        yield _Rollouts(evaluation)
        return
    with Journal.opened(evaluation.edits.folder / RESIZED) as resized:
        yield _References(evaluation, evaluation.origin, resized)


class _Rollouts:
    """The configuration's own editor, under a LoRA or none."""

    def __init__(self, evaluation: Evaluation) -> None:
        config = evaluation.config
        self._evaluation = evaluation
        self._pool = RolloutPool(config.editor, config.rollout, config.seed, namespace(config.name))
        self.close = self._pool.close

    async def open(self) -> None:
        await self._pool.open()
        await self._pool.adopt(*await self._policy())

    async def edit(self, task: EditTask, seed: int) -> bytes:
        rollout = await self._pool.rollout(task, RolloutSeeds(seed), steps=self._evaluation.steps, keep_states=False)
        group = CandidateGroup.from_arrow(await rollout.group)
        return await asyncio.to_thread(encode_png, group.images[0])

    async def _policy(self) -> tuple[PolicyVersion, Any]:
        lora = self._evaluation.lora
        if lora is None:
            return await self._pool.untrained()
        version, packed = weights_of.pack(1, read_lora(self._evaluation.config.editor.lora, lora))
        return version, ray.put(packed)


class _References:
    """Another editor's pipeline. What it gives in another size is brought to the one it was shown, and written down."""

    def __init__(self, evaluation: Evaluation, reference: Reference, resized: Journal) -> None:
        config = evaluation.config
        self._name = reference.source.name
        self._resized = resized
        self._pool = ReferencePool(reference, config.editor, config.rollout, namespace(config.name))
        self._made = self._failed = 0
        self.open, self.close = self._pool.open, self._pool.close

    async def edit(self, task: EditTask, seed: int) -> bytes:
        try:
            edited = await self._pool.edit(task, seed)
        except EditFailedError as error:
            self._failed += 1
            if not self._made and self._failed >= GIVE_UP_AFTER:
                raise PoolError(
                    f"the pipeline {self._name} failed on each of the {self._failed} tasks that it was given; "
                    f"last, {task.task_id}: {gist(error)}"
                ) from error
            raise
        self._made += 1
        if edited.resized:
            # Before the edit is there: what is made again is written down again.
            self._resized.append({"task_id": task.task_id, "sizes": _sizes(edited)})
        return await asyncio.to_thread(encode_png, edited.pixels)


def resized_of(edits: Edits) -> dict[str, str]:
    """Return the samples whose edits `make_edits` brought to another size -> from which to which."""
    if not (edits.folder / RESIZED).exists():
        return {}
    with Journal.opened(edits.folder / RESIZED) as journal:
        return {record["task_id"]: record["sizes"] for record in journal.records}


def _sizes(edited: Edited) -> str:
    height, width = edited.pixels.shape[:2]
    return f"{edited.came_as[0]}x{edited.came_as[1]} to {height}x{width} (height x width)"
