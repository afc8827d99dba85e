"""How a run comes back: to its last whole checkpoint, with learner, ledger and records as they were then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.batches.ledger import Ledger
from deploy.batches.source import Source
from deploy.evaluating.heldout import HeldOutExam
from deploy.records.checkpoints import CheckpointError, Checkpoints, Manifest
from deploy.records.folder import RunFolder
from deploy.run.books import Books
from deploy.run.position import Position
from deploy.stopping import GuardError, RunawayError, RunStoppedError, Stop
from deploy.watching.progress import Progress
from learner.errors import LearnerLostError
from learner.protocol import Learner
from rc_grpo.config import RunConfig


class Recovery:
    """Makes a run's checkpoints, and brings it back to the last one.

    Args:
        config: of the run.
        position: of the run; moved on going back.
        ledger: of the groups that the run owes.
        books: of the run.
        exam: the held-out evaluations of the run.
        progress: where a person watches.
    """

    def __init__(
        self,
        config: RunConfig,
        position: Position,
        ledger: Ledger,
        books: Books,
        exam: HeldOutExam,
        progress: Progress,
    ) -> None:
        self._files = RunFolder.of(config)
        self._checkpoints = Checkpoints(self._files.path / "checkpoints", config.output.checkpoints_kept)
        self._restarts = config.learner.restarts
        self._position = position
        self._ledger = ledger
        self._books = books
        self._exam = exam
        self._progress = progress

    @asynccontextmanager
    async def from_last_checkpoint(self, learner: Learner, source: Source, stop: Stop) -> AsyncIterator[None]:
        """Bring learner, ledger and records to the last whole checkpoint, then run the block.

        A learner that is lost in the block ends it; entered again, it starts from the last checkpoint then. A stop that
        was asked for is answered by a checkpoint.

        Raises:
            LearnerLostError: it was lost more often in a row than ``learner.restarts``.
            RunStoppedError: after that checkpoint, with how to go on.
            GuardError: a guard ended the run; after a checkpoint, if the policy is none the worse.
        """
        try:
            if not learner.is_open:
                with self._progress.waiting("starting learner actors"):
                    await stop.unless_asked(learner.open())
            await self._restore(learner)
            yield
        except LearnerLostError as error:
            await source.cancel()
            learner.close()
            self._position.losses += 1
            if self._position.losses > self._restarts:
                raise
            self._progress.say(f"{error}; starting it again from the last checkpoint")
        except (RunStoppedError, GuardError) as error:
            await source.cancel()
            if not isinstance(error, RunawayError):
                await self.checkpoint(learner)
            way = f"go on with: rc-grpo train --resume {self._files.path}"
            if isinstance(error, GuardError):
                raise type(error)(f"{error}; {way}") from error
            raise RunStoppedError(f"stopped after update {self._position.done}, as asked; {way}") from error

    async def checkpoint(self, learner: Learner) -> None:
        """Make what is done so far safe, unless it is."""
        position = self._position
        if position.saved == position.done:
            return
        begun = self._checkpoints.begin(position.done)
        await learner.save(self._checkpoints.folder, begun)
        await self._books.recorded()
        manifest = Manifest(position.done, learner.version, self._ledger.snapshot(), position.clock.seconds)
        await asyncio.to_thread(self._checkpoints.commit, begun, manifest)
        await self._books.keep_policy(learner)
        position.saved, position.losses = position.done, 0

    async def _restore(self, learner: Learner) -> None:
        """Go back to the last whole checkpoint; where there is none yet, make the first."""
        latest = await asyncio.to_thread(self._checkpoints.latest)
        if latest is None:
            await learner.publish()
            await self.checkpoint(learner)
            return
        name, manifest = latest
        await learner.load(self._checkpoints.folder, name)
        version, _ = await learner.publish()
        if version != manifest.version:
            raise CheckpointError(f"checkpoint {name} is of {manifest.version}, but restored to {version}")
        position = self._position
        position.done = position.saved = manifest.update
        position.clock.start(manifest.training_seconds)
        self._ledger.restore(manifest.ledger)
        await self._books.rewind(position.done)
        self._exam.go_back(self._files.evaluations())
        self._progress.say(f"at update {position.done}, {version}, from {name}")
