"""The actors that measure edits: elastic and replaced like all others, fed with bytes, so that they need no disk."""

import os
from typing import Any

import ray
from ray.exceptions import RayActorError

from rc_grpo.config import PoolConfig, RolloutConfig
from rc_grpo.evaluation.frames import Originals
from rc_grpo.evaluation.measuring import Measured, MeasureSettings, Meter
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


MeasurerActor = ray.remote(Measurer)


class MeasurerPool(WorkerPool[Any]):
    """Measuring actors in the rollout workers' places: as many, with their resources, threads and deadlines.

    Args:
        settings: which models measure.
        rollout: whose places they take.
        namespace: Ray namespace in which the actors are named.
    """

    def __init__(self, settings: MeasureSettings, rollout: RolloutConfig, namespace: str) -> None:
        places = {name: getattr(rollout, name) for name in PoolConfig.model_fields if name != "autoscale"}
        self._config_of_actors = PoolConfig(**places)
        super().__init__("measure", self._config_of_actors, self._start_actor, ray.kill, lost=(RayActorError,))
        self._settings = settings
        self._namespace = namespace

    async def measure(self, name: str, originals: Originals, edited: bytes, caption: str | None) -> Measured:
        """Measure one edit on the next free actor.

        Raises:
            ValueError: an image is unreadable.
        """

        async def call(member: Member[Any]) -> Measured:
            measured: Measured = await member.handle.measure.remote(originals, edited, caption)
            return measured

        return await self.run(f"the measures of {name}", call)

    async def _start_actor(self, name: str) -> Any:
        config = self._config_of_actors
        actor = MeasurerActor.options(**config.actor_options(self._namespace, name)).remote(
            self._settings, config.threads
        )
        await or_undo(actor.describe.remote(), lambda: ray.kill(actor))
        return actor


def available(settings: MeasureSettings) -> tuple[MeasureSettings, list[str]]:
    """Return the settings without what this machine cannot measure, and a sentence for each thing left out.

    CLIP is checked too, and is an error where it is missing: two of five numbers are not left out unasked.

    Raises:
        ClipUnavailableError: the CLIP model is not to be had.
    """
    from rc_grpo.evaluation.clip import Clip
    from rc_grpo.evaluation.lpips import Lpips, LpipsUnavailableError

    said: list[str] = []
    if settings.clip is None:
        said.append("LC-I and LC-T are left out: no CLIP model was named.")
    else:
        Clip.load(settings.clip)
    if settings.lpips:
        try:
            Lpips.load()
        except LpipsUnavailableError as error:
            said.append(f"{error}.")
            settings = settings.model_copy(update={"lpips": False})
    return settings, said
