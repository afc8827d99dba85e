"""The judge's loss: answers token by token, marks as distributions, and maps of the picture on the side."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reward_service.contract import QUESTIONS, Question
from reward_service.judge import FULL_MARKS
from reward_service.pocket_judge.answers import grades
from reward_service.pocket_judge.architecture import IMAGE_TOKENS, WIDTH
from reward_service.pocket_judge.batches import MAPS, Batch
from reward_service.pocket_judge.network import Network
from reward_service.pocket_judge.sequences import Form

COLUMNS: dict[Question, slice] = {"sc": slice(0, 2), "pq": slice(2, 4)}
"""Which of the teacher's four marks a question asks for."""

MARK_SPREAD = 0.6
"""Standard deviation, in marks, of the target distribution around the teacher's mark: 11.9 is nearly 12."""

_WORD_WEIGHT, _MARK_WEIGHT, _MEAN_WEIGHT, _MAP_WEIGHT = 0.25, 4.0, 40.0, 30.0


@dataclass(frozen=True)
class Losses:
    """Scalars.

    Attributes:
        total: what is minimised.
        words: cross-entropy of an answer's tokens, marks left out.
        marks: cross-entropy of the marks' distributions.
        errors: RMS error of the expected marks, ``[4]``.
        maps: mean squared error of the maps.
    """

    total: Tensor
    words: Tensor
    marks: Tensor
    errors: Tensor
    maps: Tensor


class Pupil(nn.Module):
    """The network with what it needs only while it learns.

    From two numbers a question, comparing pictures is hard to discover. So the tokens of an edited image also tell, by
    a linear layer that is thrown away afterwards, where and how far it differs from source and target.

    Args:
        network: the judge.
        forms: the two questions about all scenes.
    """

    def __init__(self, network: Network, forms: Mapping[Question, Form]) -> None:
        super().__init__()
        self.network = network
        self.maps = nn.ModuleDict({question: nn.Linear(WIDTH, MAPS) for question in QUESTIONS})
        self._forms = dict(forms)

    def forward(self, source: Tensor, edited: Tensor, rows: dict[Question, tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Look and read; return logits ``[B, C, A, V]`` and maps ``[B, C, 64, 4]`` of SC, then those of PQ.

        Args:
            source: ``[B, 3, 128, 128]``.
            edited: ``[B, C, 3, 128, 128]``.
            rows: `Form.pack` of each question.
        """
        scenes, count = edited.shape[:2]
        seen = self.network.look(torch.cat([source, edited.flatten(0, 1)]))
        before, after = seen[:scenes, None], seen[scenes:].reshape(scenes, count, IMAGE_TOKENS, WIDTH)
        results = []
        for question, (ids, places) in rows.items():
            layout = self._forms[question].layout
            images = torch.cat([before, after], dim=1) if question == "sc" else after
            hidden = self.network.read(ids, images, layout)
            answering = hidden.gather(1, places.flatten(1)[..., None].expand(-1, -1, hidden.shape[-1]))
            looking = hidden[:, layout.shown[-count * IMAGE_TOKENS :]]
            results.append(self.network.speak(answering).reshape(*places.shape, -1).float())
            results.append(self.maps[question](looking).reshape(scenes, count, IMAGE_TOKENS, MAPS).float())
        return results


class Lesson:
    """What is asked and expected of one batch.

    The answers that the network reads while it answers are random ones. Fed the true words, as is usual, it would learn
    to read the marks off the words instead of off the picture; and when it judges, the words are only its own guess.

    Args:
        forms: the two questions about all scenes.
        scenes: which scenes, ``[B]``.
        batch: their edits and marks.
        generator: of the random answers.
    """

    def __init__(
        self, forms: Mapping[Question, Form], scenes: Tensor, batch: Batch, generator: torch.Generator
    ) -> None:
        self._forms, self._batch = forms, batch
        self._answers: dict[Question, Tensor] = {}
        self.rows: dict[Question, tuple[Tensor, Tensor]] = {}
        for question in QUESTIONS:
            form, truth = forms[question], batch.marks[..., COLUMNS[question]]
            self._answers[question] = form.answers.filled(grades(truth), truth.round().long())
            fed = FULL_MARKS * torch.rand(truth.shape, device=truth.device, generator=generator)
            self.rows[question] = form.pack(scenes, form.answers.filled(grades(fed), fed.round().long()))

    def losses(self, results: list[Tensor]) -> Losses:
        """Compare what `Pupil` returned with what was expected."""
        words, marks, errors, maps = [], [], [], []
        for question, logits, seen in zip(QUESTIONS, results[::2], results[1::2], strict=True):
            form, truth = self._forms[question].answers, self._batch.marks[..., COLUMNS[question]]
            chances = logits.log_softmax(dim=-1)
            spoken = torch.ones(logits.shape[-2], dtype=torch.bool, device=logits.device)
            spoken[form.slots] = False
            said = chances.gather(-1, self._answers[question][..., None])[..., 0]
            words.append(-(said * spoken).sum(dim=-1).mean())
            chosen = chances[..., form.slots, :][..., form.marks]
            marks.append(-(mark_distribution(truth) * chosen).sum(dim=-1).mean())
            mean = (chosen.softmax(dim=-1) * torch.arange(chosen.shape[-1], device=chosen.device)).sum(dim=-1)
            errors.append((mean - truth).square().mean(dim=(0, 1)))
            maps.append(functional.mse_loss(seen, self._batch.maps))
        squares = torch.cat(errors)
        word, mark, share = (torch.stack(parts).mean() for parts in (words, marks, maps))
        error = squares.mean() / FULL_MARKS**2
        total = _WORD_WEIGHT * word + _MARK_WEIGHT * mark + _MEAN_WEIGHT * error + _MAP_WEIGHT * share
        return Losses(total, word, mark, squares.detach().sqrt(), share)


def mark_distribution(marks: Tensor) -> Tensor:
    """Return the chances ``[..., 26]`` of each whole mark when noise of `MARK_SPREAD` is added and it is rounded."""
    edges = torch.arange(int(FULL_MARKS), device=marks.device) + 0.5
    below = torch.special.ndtr((edges - marks[..., None]) / MARK_SPREAD)
    # What lies beyond the scale counts for its ends.
    return torch.diff(below, prepend=torch.zeros_like(below[..., :1]), append=torch.ones_like(below[..., :1]))
