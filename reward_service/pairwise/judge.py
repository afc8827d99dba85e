"""The pairwise judge: a group's candidates compared two by two, and each given its share of wins."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rc_grpo.config import PairwiseConfig, SamplingConfig
from rc_grpo.messages import EditTask
from reward_service.asking.client import RequestRefusedError
from reward_service.judge import Verdict
from reward_service.pairwise.contract import ANSWER_SCHEMA, Choice, parse_choice
from reward_service.pairwise.question import PairQuestion
from reward_service.pairwise.tournament import Pair, Standing, agreed, majority, pairs, standings
from reward_service.serving.endpoint import Endpoint
from reward_service.vision_judge import (
    OPENING_INSTRUCTION,
    Answers,
    UnansweredError,
    VisionJudge,
    shown_at,
    together,
)


@dataclass(frozen=True)
class _Compared:
    """What came of a pair: its outcome as of `standings`, whether both orders agreed, tries, or why there is none."""

    outcome: int | None
    agreed: bool = False
    attempts: int = 1
    fault: str = ""


class PairwiseJudge(VisionJudge):
    """Scores a group through one server, by who of its candidates is preferred to whom.

    Args:
        config: model, sampling, patience, how many comparisons.
        endpoint: where the model is served.
        question: what is asked of two edits.
    """

    def __init__(self, config: PairwiseConfig, endpoint: Endpoint, question: PairQuestion) -> None:
        super().__init__(config, endpoint, images=3)
        self._question = question
        self._others, self._seed = config.comparisons, config.seed

    async def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Compare images ``[G, H, W, 3]`` two by two; the source is resized to them as for editing.

        Raises:
            JudgeUnavailableError: another server may do better.
            JudgeSetupError: none will.
        """
        if len(images) < 2:
            return [Verdict.failure("one edit alone cannot be compared with others of its group")] * len(images)
        keys = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        chosen = pairs(keys, self._others, self._seed)
        async with self._showing() as show:
            source, *edits = await together(show(image) for image in (shown_at(images, task), *images))
            asked = [self._compare(task.instruction, source, edits[first], edits[second]) for first, second in chosen]
            found = dict(zip(chosen, await together(asked), strict=True))
        stood = standings(len(images), {pair: compared.outcome for pair, compared in found.items()})
        return [self._verdict(place, standing, found) for place, standing in enumerate(stood)]

    async def _opening(self, images: Sequence[str], sampling: SamplingConfig) -> None:
        source, edited = images
        messages = self._question.chat([source, edited, source], OPENING_INSTRUCTION)
        await self._connected().complete(messages, sampling, ANSWER_SCHEMA, count=1, seed=sampling.seed)

    async def _compare(self, instruction: str, source: str, first: str, second: str) -> _Compared:
        try:
            forward, backward = await together(
                self._choose(instruction, [source, *shown]) for shown in ((first, second), (second, first))
            )
        except (UnansweredError, RequestRefusedError) as error:
            return _Compared(None, attempts=self._config.sampling.attempts, fault=str(error))
        said, turned = majority(forward.passes), -majority(backward.passes)
        return _Compared(agreed(said, turned), said == turned, max(forward.attempts, backward.attempts))

    async def _choose(self, instruction: str, images: Sequence[str]) -> Answers[Choice]:
        return await self._ask(
            "which edit is better", self._question.chat(images, instruction), ANSWER_SCHEMA, parse_choice
        )

    def _verdict(self, place: int, standing: Standing | None, found: Mapping[Pair, _Compared]) -> Verdict:
        mine = [compared for pair, compared in found.items() if place in pair]
        attempts = max(compared.attempts for compared in mine)
        faults = [compared.fault for compared in mine if compared.outcome is None]
        if standing is None or (share := standing.share) is None:
            last = f", the last: {faults[-1]}" if faults else ""
            said = f"{len(faults)} of {len(mine)} comparisons failed{last}"
            return Verdict.failure(said if standing is None else f"nobody is left to compare with; {said}", attempts)
        met = standing.won + standing.lost + standing.tied
        moved = sum(not compared.agreed for compared in mine if compared.outcome is not None)
        return Verdict(
            share,
            reason=f"won {standing.won}, lost {standing.lost}, tied {standing.tied} of {met} comparisons"
            + (f"; in {moved} the order of showing decided, which is a tie" if moved else ""),
            attempts=attempts,
        )
