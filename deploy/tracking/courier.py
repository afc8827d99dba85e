"""Carries a run's records to one tracker in a thread, so that a slow or dead one neither holds up nor ends the run."""

import json
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from deploy.tracking.tracker import Ending, Tracker, TrackerError
from rc_grpo.durable import write_whole
from rc_grpo.kept import Form, read_json

CLOSE_S = 60.0
SAY_A_WAIT_AFTER_S = 10.0
logger = logging.getLogger(__name__)


class _Memory(Form):
    run_id: str | None = None
    sent: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """Something for a tracker.

    Attributes:
        kind: of the records among which its update is unique: ``update``, ``evaluation``, ``grid``, ``summary``.
        update: whose it is.
        send: gives it to a tracker.
    """

    kind: str
    update: int
    send: Callable[[Tracker], None]


class Courier:
    """Carries records to a tracker, in order.

    The tracker's run id, and the last update sent of each kind, are in a file of the run's folder. So a resumed run
    goes on in the same tracker run, and an update that is made again is not there twice: what was sent first stays.

    Args:
        name: of the tracker, as the configuration has it.
        tracker: not opened yet; used by the courier's thread alone.
        memory: that file.
    """

    def __init__(self, name: str, tracker: Tracker, memory: Path) -> None:
        self.name = name
        self._tracker = tracker
        self._path = memory
        way_out = "bring it back from a copy, or remove it: the tracker then begins another run"
        known = read_json(memory, _Memory, way_out) if memory.exists() else {}
        self._run_id: str | None = known.get("run_id")
        self._sent: dict[str, int] = known.get("sent", {})
        self._open = self._complained = False
        self._tried = threading.Event()
        self._refused: Exception | None = None
        self._records: queue.SimpleQueue[Record | Ending] = queue.SimpleQueue()
        # Daemon: a library that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._carry, name=f"tracker-{name}", daemon=True)

    def start(self) -> None:
        """Open the tracker, and wait until it is.

        Raises:
            TrackerError: it cannot be opened for a new run. One that goes on trains without, and tries again with every
                record: a tracker must not keep a run from being resumed.
        """
        goes_on = self._run_id is not None
        self._thread.start()
        if not self._tried.wait(SAY_A_WAIT_AFTER_S):
            logger.warning("%s takes long to open the run; it is waited for until its library gives up", self.name)
            self._tried.wait()
        if self._refused is None:
            return
        if not goes_on:
            self._records.put("failed")
            raise TrackerError(
                f"output.trackers names {self.name}, which cannot be opened: {_in_words(self._refused)}"
            ) from self._refused
        self._complain(self._refused)

    def take(self, record: Record) -> None:
        """Carry a record when it is its turn; returns at once."""
        self._records.put(record)

    def close(self, ending: Ending) -> None:
        """Carry what is left, close the tracker, and wait for both, up to `CLOSE_S`."""
        self._records.put(ending)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            logger.warning("%s did not take the run's last records in %g s; they are given up", self.name, CLOSE_S)

    def _carry(self) -> None:
        self._refused = self._attempt(self._opened)
        self._tried.set()
        while True:
            taken = self._records.get()
            if isinstance(taken, Record):
                error = self._attempt(lambda record=taken: self._send(record))
            else:
                error = self._attempt(lambda ending=taken: self._tracker.close(ending)) if self._open else None
            if error is not None:
                self._complain(error)
            if not isinstance(taken, Record):
                return

    def _send(self, record: Record) -> None:
        if record.update <= self._sent.get(record.kind, -1):
            return
        if not self._open:
            self._opened()
        record.send(self._tracker)
        self._sent[record.kind] = record.update
        self._remember()

    def _opened(self) -> None:
        self._run_id = self._tracker.open(self._run_id)
        self._open = True
        self._remember()

    def _remember(self) -> None:
        write_whole(self._path, json.dumps({"run_id": self._run_id, "sent": self._sent}) + "\n")

    @staticmethod
    def _attempt(work: Callable[[], None]) -> Exception | None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the libraries pass on what those of their stores raise; it is said
            return error
        return None

    def _complain(self, error: Exception) -> None:
        """Say once that a record is missing there; both libraries have tried long enough before they raise."""
        if not self._complained:
            logger.warning(
                "%s did not take a record of the run: %s. Training goes on, and all records are in the run's folder; "
                "what else fails there is not said again",
                self.name,
                _in_words(error),
            )
        self._complained = True


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
