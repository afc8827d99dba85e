"""What a study found: how often each model's edit was chosen, and which of two was preferred."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from deploy.study.manifest import VOTES, Manifest
from deploy.study.votes import Vote, Votes
from rc_grpo.evaluation.compbench.paper import STUDY
from rc_grpo.evaluation.intervals import FEW, LEVEL, Interval, share_interval, sign_test


@dataclass(frozen=True)
class Share:
    """How often one answer was given.

    Attributes:
        answer: a model, or None for "not sure".
        won: trials with this answer.
        of: all trials.
        share: ``won / of``; None without trials.
        interval: of the share.
    """

    answer: str | None
    won: int
    of: int
    share: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Duel:
    """Two models among the trials that either of them won.

    Attributes:
        first: a model.
        second: another.
        wins: of the first.
        losses: of the first, which are wins of the second.
        share: of the first; None without such trials.
        interval: of the share.
        p: exact binomial test against one half, which takes every vote as independent.
    """

    first: str
    second: str
    wins: int
    losses: int
    share: float | None
    interval: Interval | None
    p: float | None


@dataclass(frozen=True)
class Results:
    """A study's votes, counted.

    Attributes:
        trials: votes that count.
        possible: those there would be if every participant had answered everything.
        participants: number of votes of each.
        shares: of the models, the most chosen first; then of "not sure".
        duels: of all pairs of models.
        places: how often the edit at the first, second, ... place was chosen, whatever the model.
        notes: what to know about these numbers.
    """

    trials: int
    possible: int
    participants: dict[str, int]
    shares: tuple[Share, ...]
    duels: tuple[Duel, ...]
    places: tuple[int, ...]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Count the votes of a study's folder, also while it is served.

        Raises:
            ValueError: it is no study's folder, or holds a vote about something else.
        """
        manifest, votes = Manifest.read(folder), Votes.read(folder / VOTES)
        for vote in votes.counted.values():
            if vote.task_id not in manifest.examples or set(vote.shown) != set(manifest.models):
                raise ValueError(
                    f"{folder / VOTES} has a vote of {vote.participant!r} for {vote.task_id}, between "
                    f"{', '.join(vote.shown)}, which is not of this study; remove that line"
                )
        return tally(manifest.models, len(manifest.examples), tuple(votes.counted.values()), votes.word)

    def as_json(self) -> dict[str, Any]:
        """Return everything, and the paper's numbers beside it."""
        return {**asdict(self), "level": LEVEL, "intervals": self.method, "paper": asdict(STUDY)}

    @property
    def method(self) -> str:
        """How the intervals were made."""
        return "bootstrap over participants" if len(self.participants) > 1 else "Wilson"


def tally(models: Sequence[str], examples: int, votes: Collection[Vote], word: str | None = None) -> Results:
    """Count votes, one for each participant and task.

    Args:
        models: those compared.
        examples: how many trials a participant has.
        votes: in any order.
        word: a note about the file.
    """
    participants = Counter(vote.participant for vote in votes)
    people = sorted(participants)
    by_answer = {
        answer: Counter(vote.participant for vote in votes if vote.choice == answer) for answer in (*models, None)
    }

    def share(answer: str | None) -> Share:
        won, of = ([counts[who] for who in people] for counts in (by_answer[answer], participants))
        return Share(answer, sum(won), sum(of), _ratio(sum(won), sum(of)), share_interval(won, of))

    def duel(first: str, second: str) -> Duel:
        won, lost = ([by_answer[model][who] for who in people] for model in (first, second))
        of = [a + b for a, b in zip(won, lost, strict=True)]
        wins, losses = sum(won), sum(lost)
        return Duel(
            first, second, wins, losses, _ratio(wins, wins + losses), share_interval(won, of), sign_test(wins, losses)
        )

    ranked = sorted((share(model) for model in models), key=lambda each: -each.won)
    order = [each.answer for each in ranked if each.answer is not None]
    chosen_places = Counter(vote.shown.index(vote.choice) for vote in votes if vote.choice is not None)
    return Results(
        trials=len(votes),
        possible=examples * len(participants),
        participants={who: participants[who] for who in people},
        shares=(*ranked, share(None)),
        duels=tuple(duel(first, second) for first, second in combinations(order, 2)),
        places=tuple(chosen_places[place] for place in range(len(models))),
        notes=tuple(_notes(participants, word)),
    )


def _ratio(won: int, of: int) -> float | None:
    return won / of if of else None


def _notes(participants: Counter[str], word: str | None) -> list[str]:
    notes = [] if word is None else [word]
    if not participants:
        return [*notes, "Nobody has voted yet."]
    if len(participants) == 1:
        return [*notes, "One participant: the intervals say nothing about other people."]
    notes.append(
        "p takes every vote as independent; votes of one participant are not, and the intervals allow for that."
    )
    if len(participants) < FEW:
        notes.append(
            f"A bootstrap over {len(participants)} participants is rough: its intervals tend to be too narrow."
        )
    return notes
