"""How GPUs are dealt out to the stages of an update: the fastest split of so many, or one that is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rc_grpo.config import RunConfig

LEARNER = "learner"
_ROUNDING = 1e-9


class CapacityError(ValueError):
    """The plan that is asked for cannot be made."""


@dataclass(frozen=True)
class Cards:
    """GPUs of one kind of work: of a stage alone, or of stages that take turns on them.

    Attributes:
        demands: seconds of one GPU that each of its stages works on an update's groups, by name.
        most: GPUs that an update's groups keep busy.
    """

    demands: Mapping[str, float]
    most: int

    @property
    def name(self) -> str:
        """As in a table."""
        return " + ".join(self.demands)

    def seconds(self, gpus: int, stages: Sequence[str] | None = None) -> float:
        """Return how long so many GPUs take for some of its stages, for all if none are named."""
        wanted = self.demands if stages is None else stages
        return sum(self.demands[name] for name in wanted if name in self.demands) / min(gpus, self.most)


def together(config: RunConfig, stages: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Put stages together whose actors ask for fractions of a GPU, as far as these fit one, as Ray does.

    Args:
        config: of the run.
        stages: in the order of the data's way.
    """
    asked = _asked(config)
    parts = {name: asked[name] if 0 < asked[name] < 1 else 1.0 for name in stages}
    found: list[list[str]] = []
    for name, part in parts.items():
        room = [names for names in found if sum(parts[one] for one in names) + part <= 1 + _ROUNDING]
        room[0].append(name) if room else found.append([name])
    return tuple(map(tuple, found))


def judges_a_gpu(config: RunConfig, shared: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return how many servers of each judge are on one of its GPUs: as many as fit beside others that are no judges.

    Args:
        config: of the run.
        shared: stages, as they are `together`.
    """
    asked = _asked(config)
    found: dict[str, float] = {}
    for names in shared:
        judges = [name for name in names if name in config.reward.judges]
        # Room that several could have is nobody's.
        found |= dict.fromkeys(judges, 1.0)
        if len(judges) == 1:
            (name,) = judges
            room = 1 - sum(asked[other] for other in names if other != name)
            found[name] = float(int(room / asked[name] + _ROUNDING)) if asked[name] < 1 else 1 / asked[name]
    return found


def cards_of(config: RunConfig, demands: Mapping[str, float]) -> tuple[Cards, ...]:
    """Return who works on which GPUs.

    Args:
        config: of the run.
        demands: of each stage, in the order of the data's way.
    """
    shares = together(config, demands)
    return tuple(Cards({name: demands[name] for name in names}, _most(config, names)) for names in shares)


def _asked(config: RunConfig) -> dict[str, float]:
    return {
        "rollout": config.rollout.resources.num_gpus,
        **{name: judge.resources.num_gpus for name, judge in config.reward.judges.items()},
        LEARNER: config.learner.resources.num_gpus,
    }


def _most(config: RunConfig, names: Sequence[str]) -> int:
    """A group goes to one worker whole; the learner's ranks deal out its anchors, each with a path of its own."""
    groups = config.loop.groups_per_update
    by_anchor = config.objective.algorithm == "rc_grpo" and list(names) == [LEARNER]
    return groups * (config.objective.anchors if by_anchor else 1)


def update_seconds(cards: Sequence[Cards], split: Sequence[int], overlapped: bool) -> float:
    """Return how long an update takes.

    Args:
        cards: what there is to do.
        split: GPUs of each.
        overlapped: all work at the same time. Otherwise a group is judged while the next is rolled out, and the learner
            begins when all are there.
    """
    if overlapped:
        return max(one.seconds(gpus) for one, gpus in zip(cards, split, strict=True))
    before = max(
        one.seconds(gpus, [name for name in one.demands if name != LEARNER])
        for one, gpus in zip(cards, split, strict=True)
    )
    return before + sum(one.seconds(gpus, [LEARNER]) for one, gpus in zip(cards, split, strict=True))


def fastest(cards: Sequence[Cards], gpus: int, overlapped: bool) -> tuple[int, ...]:
    """Return the split of so many GPUs with the shortest update.

    Raises:
        CapacityError: there are fewer GPUs than kinds of work.
    """
    if gpus < len(cards):
        names = ", ".join(one.name for one in cards)
        raise CapacityError(
            f"--gpus {gpus} is too few: {names} need one each. Actors that ask for fractions share one: set "
            "rollout.resources.num_gpus, that of the judge and learner.resources.num_gpus to what they may take of it, "
            "as the packaged flux2_klein_4b_one_gpu does"
        )
    if overlapped:
        return _balanced(cards, gpus)
    own = next(place for place, one in enumerate(cards) if LEARNER in one.demands)
    others = [one for place, one in enumerate(cards) if place != own]
    splits = []
    for ranks in range(1, gpus - len(others) + 1):
        rest = _balanced(others, gpus - ranks)
        splits.append((*rest[:own], ranks, *rest[own:]))
    return min(splits, key=lambda split: update_seconds(cards, split, overlapped))


def parse_split(text: str, cards: Sequence[Cards]) -> tuple[int, ...]:
    """Return the split that a text such as ``5/1/2`` means.

    Raises:
        CapacityError: it is no such text, or has more or fewer numbers than there are kinds of work.
    """
    names = " / ".join(one.name for one in cards)
    words = text.split("/")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise CapacityError(
            f"--split {text!r} is none: write the GPUs of {names}, such as {'/'.join('1' * len(cards))}"
        )
    if len(words) != len(cards):
        raise CapacityError(f"--split {text} has {len(words)} numbers; {len(cards)} are wanted, of {names}")
    return tuple(map(int, words))


def _balanced(cards: Sequence[Cards], gpus: int) -> tuple[int, ...]:
    """Give every one a GPU, then each further one to the slowest: no other split has a faster slowest one."""
    share = [1] * len(cards)
    work = [sum(one.demands.values()) for one in cards]
    for _ in range(gpus - len(share) if share else 0):
        useful = [place for place in range(len(share)) if share[place] < cards[place].most] or range(len(share))
        share[max(useful, key=lambda place: work[place] / share[place])] += 1
    return tuple(share)
