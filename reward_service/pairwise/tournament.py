"""Who is compared with whom, and what becomes of the outcomes: a candidate's share of wins.

Why shares and not Bradley-Terry strengths: where everyone meets everyone, both order the candidates alike, and a share
is bounded without a prior and exists for one who always wins. Where not, it leaves out how strong the others were whom
one met, which the seed decides blindly.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rc_grpo.seeds import derive

Pair = tuple[int, int]


@dataclass(frozen=True)
class Standing:
    """What a candidate came to.

    Attributes:
        won: comparisons, of those that counted.
        lost: likewise.
        tied: likewise.
        share: of its comparisons that it won, a tie being half a win, 0..1; None where none counted.
    """

    won: int = 0
    lost: int = 0
    tied: int = 0

    @property
    def share(self) -> float | None:
        """Wins and half the ties over all."""
        met = self.won + self.lost + self.tied
        return (self.won + self.tied / 2) / met if met else None


def pairs(keys: Sequence[str], others: int, seed: int) -> list[Pair]:
    """Return who is compared with whom, each pair once.

    All with all in a group of at most ``others + 1``. In a larger one candidates stand in a ring, in an order that
    depends on the seed and on what they are, not on how they are numbered, and each meets its ``others / 2`` next
    neighbours on both sides: everyone as many, nobody cut off from anybody.

    Args:
        keys: what tells the candidates apart, such as digests.
        others: even.
        seed: of the ring's order.
    """
    count = len(keys)
    if count <= others + 1:
        return list(combinations(range(count), 2))
    ring = sorted(range(count), key=lambda place: (derive("pairwise", seed, keys[place]), place))
    return [(ring[place], ring[(place + step) % count]) for place in range(count) for step in range(1, others // 2 + 1)]


def standings(count: int, outcomes: Mapping[Pair, int | None]) -> list[Standing | None]:
    """Return what each of so many candidates came to; None for one whose comparisons failed.

    A comparison that failed is nobody's win. Who failed most is taken out with all of its comparisons, until none that
    failed is left: one broken image does not cost the others their scores.

    Args:
        count: of the candidates.
        outcomes: by pair: 1 where its first won, -1 where its second did, 0 for a tie; None where it failed.
    """
    out: set[int] = set()
    while failures := Counter(_members(pair for pair, said in outcomes.items() if said is None and not out & {*pair})):
        most = max(failures.values())
        # All who failed as often, or the order of the candidates would decide.
        out |= {place for place, times in failures.items() if times == most}
    counted = [(pair, said) for pair, said in outcomes.items() if said is not None and not out & {*pair}]
    won = Counter(pair[0] if said > 0 else pair[1] for pair, said in counted if said)
    lost = Counter(pair[1] if said > 0 else pair[0] for pair, said in counted if said)
    tied = Counter(_members(pair for pair, said in counted if not said))
    return [None if place in out else Standing(won[place], lost[place], tied[place]) for place in range(count)]


def agreed(forward: int, backward: int) -> int:
    """Return the outcome of a pair that was shown in both orders; a tie where the two do not agree.

    A judge that prefers a place to a picture is thereby one that sees no difference.

    Args:
        forward: 1 where the first of the pair won when it was shown first, -1 where the second did, 0 for a tie.
        backward: likewise, 1 still for the first of the pair, of the question in which it was shown second.
    """
    return forward if forward == backward else 0


def majority(choices: Iterable[int]) -> int:
    """Return what most of several passes said; a tie where as many said one thing as the other."""
    total = sum(choices)
    return (total > 0) - (total < 0)


def _members(found: Iterable[Pair]) -> Iterable[int]:
    return (place for pair in found for place in pair)
