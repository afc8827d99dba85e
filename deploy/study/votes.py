"""Votes: a line each, on the disk before the voter is told so; of several for one trial the last counts."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rc_grpo.evaluation.journal import Journal


@dataclass(frozen=True)
class Vote:
    """One participant's answer to one trial.

    Attributes:
        participant: who.
        task_id: about which example.
        choice: the model whose edit was chosen; None is "not sure".
        shown: the models in the order in which their edits were shown.
        at: when, ISO 8601 with the offset.
    """

    participant: str
    task_id: str
    choice: str | None
    shown: tuple[str, ...]
    at: str

    def as_json(self) -> dict[str, Any]:
        """Return the line's object."""
        return {**vars(self), "shown": list(self.shown)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Vote":
        """Read a line's object.

        Raises:
            ValueError: it is no vote.
        """
        try:
            vote = cls(**{**record, "shown": tuple(record["shown"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{dict(record)} is no vote ({error})") from error
        if not (isinstance(vote.participant, str) and isinstance(vote.task_id, str)):
            raise ValueError(f"{dict(record)} is no vote: participant and task_id are text")
        if vote.choice is not None and vote.choice not in vote.shown:
            raise ValueError(f"{dict(record)} is no vote: its choice was not shown")
        return vote


Counted = dict[tuple[str, str], Vote]
"""Participant and task -> the vote that counts."""


@dataclass(frozen=True)
class Votes:
    """What a file of votes says.

    Attributes:
        counted: the last vote of each participant for each task.
        torn: the last line is unfinished: whoever wrote it was killed, and its voter was not told that it counts.
    """

    counted: Counted
    torn: bool

    @classmethod
    def read(cls, path: Path) -> "Votes":
        """Read a file that may be written to meanwhile; no file is no vote.

        Raises:
            ValueError: a finished line is no vote, which no kill explains.
        """
        lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
        counted: Counted = {}
        for number, line in enumerate(lines[:-1], 1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
                vote = Vote.from_json(record)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}; mend or remove the line") from error
            counted[vote.participant, vote.task_id] = vote
        return cls(counted, bool(lines[-1]))

    @property
    def word(self) -> str | None:
        """What to say about an unfinished line, if there is one."""
        return (
            "The last line of the votes is unfinished (a crash cut it off); it is not counted." if self.torn else None
        )


class BallotBox:
    """Takes votes into a file, one process at a time; callers see to that with a lock."""

    def __init__(self, journal: Journal, counted: Counted) -> None:
        self._journal = journal
        self._counted = counted
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[tuple["BallotBox", Votes]]:
        """Open or begin a file of votes; an unfinished last line is cut off.

        Returns:
            The box, and what the file held.

        Raises:
            ValueError: a finished line is no vote.
        """
        votes = Votes.read(path)
        with Journal.opened(path) as journal:
            yield cls(journal, dict(votes.counted)), votes

    def of(self, participant: str) -> dict[str, Vote]:
        """Return task -> the vote that counts."""
        return {task_id: vote for (who, task_id), vote in self._counted.items() if who == participant}

    async def cast(self, vote: Vote) -> None:
        """Take a vote; it is on the disk when this returns. The same answer again (a double click) changes nothing.

        Raises:
            OSError: it could not be written, and does not count.
        """
        key = vote.participant, vote.task_id
        async with self._one_at_a_time:
            before = self._counted.get(key)
            if before is not None and before.choice == vote.choice:
                return
            await asyncio.to_thread(self._journal.append, vote.as_json())
            self._counted[key] = vote
