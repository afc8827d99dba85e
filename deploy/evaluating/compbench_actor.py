"""The actors that measure edits, or make another editor's: elastic, replaced like all others, fed with bytes."""

import os
from typing import Any

import ray
from ray.exceptions import RayActorError

from rc_grpo.config import EditorConfig, PoolConfig, RolloutConfig
from rc_grpo.editor.reference.editor import Edited, Reference, ReferenceEditor
from rc_grpo.evaluation.compbench.frames import Originals
from rc_grpo.evaluation.compbench.measuring import Measured, MeasureSettings, Meter
from rc_grpo.messages import EditTask
from rc_grpo.pool import WorkerPool
from rc_grpo.process import prepare_process
from rc_grpo.seats import Member
from rc_grpo.waiting import or_undo


class Measurer:
    """A `Meter` as a Ray actor.

    Args:
        settings: which models measure.
        threads: CPU threads.
    """

    def __init__(self, settings: MeasureSettings, threads: int) -> None:
        prepare_process(threads)
        self._meter = Meter(settings)

    def describe(self) -> dict[str, Any]:
        """Return where this actor is, once its models are loaded."""
        return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}

    def measure(self, originals: Originals, edited: bytes, caption: str | None) -> Measured:
        """Measure one edit, see `Meter.measure`."""
        return self._meter.measure(originals, edited, caption)


class ReferenceActor:
    """Another editor's pipeline as a Ray actor, loaded when it is first asked for anything.

    Args:
        reference: which one.
        editor: the run's, for device, precision and resolution.
        threads: CPU threads.
    """

    def __init__(self, reference: Reference, editor: EditorConfig, threads: int) -> None:
        prepare_process(threads)
        # Not loaded here: of a constructor's error Ray tells as of an actor that died.
        self._given = reference, editor
        self._editor: ReferenceEditor | None = None

    def describe(self) -> dict[str, Any]:
        """Return where this actor is, once its pipeline is loaded.

        Raises:
            rc_grpo.editor.reference.source.PipelineError: it cannot be.
        """
        self._loaded()
        return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}

    def edit(self, task: EditTask, seed: int) -> Edited:
        """Edit one task, see `ReferenceEditor.edit`."""
        return self._loaded().edit(task, seed)

    def _loaded(self) -> ReferenceEditor:
        if self._editor is None:
            self._editor = ReferenceEditor(*self._given)
        return self._editor


_RayMeasurer, _RayReference = ray.remote(Measurer), ray.remote(ReferenceActor)


class InRolloutPlaces(WorkerPool[Any]):
    """Actors in the rollout workers' places: as many, with their resources, threads and deadlines.

    Args:
        role: prefix of the actors' names.
        actor: the Ray class; it takes ``arguments`` and its CPU threads, and ``describe`` returns once it can be used.
        arguments: that each actor is made with.
        rollout: whose places they take.
        namespace: Ray namespace in which the actors are named.
    """

    def __init__(
        self, role: str, actor: Any, arguments: tuple[Any, ...], rollout: RolloutConfig, namespace: str
    ) -> None:
        places = {name: getattr(rollout, name) for name in PoolConfig.model_fields if name != "autoscale"}
        self._config_of_actors = PoolConfig(**places)
        super().__init__(role, self._config_of_actors, self._start_actor, ray.kill, lost=(RayActorError,))
        self._actor = actor
        self._arguments = arguments
        self._namespace = namespace

    async def _start_actor(self, name: str) -> Any:
        config = self._config_of_actors
        actor = self._actor.options(**config.actor_options(self._namespace, name)).remote(
            *self._arguments, config.threads
        )
        await or_undo(actor.describe.remote(), lambda: ray.kill(actor))
        return actor


class MeasurerPool(InRolloutPlaces):
    """Measuring actors.

    Args:
        settings: which models measure.
        rollout: whose places they take.
        namespace: Ray namespace in which the actors are named.
    """

    def __init__(self, settings: MeasureSettings, rollout: RolloutConfig, namespace: str) -> None:
        super().__init__("measure", _RayMeasurer, (settings,), rollout, namespace)

    async def measure(self, name: str, originals: Originals, edited: bytes, caption: str | None) -> Measured:
        """Measure one edit on the next free actor.

        Raises:
            ValueError: an image is unreadable.
        """

        async def call(member: Member[Any]) -> Measured:
            measured: Measured = await member.handle.measure.remote(originals, edited, caption)
            return measured

        return await self.run(f"the measures of {name}", call)


class ReferencePool(InRolloutPlaces):
    """Actors that edit with another editor's pipeline.

    Args:
        reference: which one.
        editor: the run's, for device, precision and resolution.
        rollout: whose places they take.
        namespace: Ray namespace in which the actors are named.
    """

    def __init__(self, reference: Reference, editor: EditorConfig, rollout: RolloutConfig, namespace: str) -> None:
        super().__init__("reference", _RayReference, (reference, editor), rollout, namespace)

    async def edit(self, task: EditTask, seed: int) -> Edited:
        """Edit one task on the next free actor.

        Raises:
            ValueError: the pipeline failed on it, or an image is unreadable.
        """

        async def call(member: Member[Any]) -> Edited:
            edited: Edited = await member.handle.edit.remote(task, seed)
            return edited

        return await self.run(f"the edit of {task.task_id}", call)


def available(settings: MeasureSettings) -> tuple[MeasureSettings, list[str]]:
    """Return the settings without what this machine cannot measure, and a sentence for each thing left out.

    CLIP is checked too, and is an error where it is missing: two of five numbers are not left out unasked.

    Raises:
        ClipUnavailableError: the CLIP model is not to be had.
    """
    from rc_grpo.evaluation.clip import Clip, ClipUnavailableError
    from rc_grpo.evaluation.lpips import Lpips, LpipsUnavailableError

    said: list[str] = []
    if settings.clip is None:
        said.append("LC-I and LC-T are left out: no CLIP model was named.")
    else:
        try:
            Clip.load(settings.clip)
        except ClipUnavailableError as error:
            how = "as --clip FOLDER, or leave the two out with --clip none"
            raise ClipUnavailableError(f"LC-I and LC-T need CLIP: {error}; {how}") from error
    if settings.lpips:
        try:
            Lpips.load()
        except LpipsUnavailableError as error:
            said.append(f"{error}.")
            settings = settings.model_copy(update={"lpips": False})
    return settings, said
