"""A question as the token ids a server makes of it, and packed into the rows of one length that training wants.

Images come before the instruction, so everything up to it stands at the same place for every scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reward_service.contract import Question
from reward_service.judge import FULL_MARKS
from reward_service.pocket_judge.answers import GRADES, answer
from reward_service.pocket_judge.architecture import IMAGE_TOKENS
from reward_service.pocket_judge.tokenizer import END_OF_TURN, IMAGE_PAD
from reward_service.prompts import Prompts, chat

IMAGES: dict[Question, int] = {"sc": 2, "pq": 1}
"""How many images a question shows."""

_SIDE = round(IMAGE_TOKENS**0.5)


@dataclass(frozen=True)
class Layout:
    """Where things stand in packed rows of a length L; alike for all rows.

    Attributes:
        shown: the images' placeholders, indices in order.
        places: rotary positions ``[3, L]`` int64 (time, row, column).
        mask: whether a token (first index) sees another, ``[L, L]`` bool.
    """

    shown: Tensor
    places: Tensor
    mask: Tensor


@dataclass(frozen=True)
class AnswerForm:
    """The answers to one question as tensors; all have the same number of tokens.

    Attributes:
        table: an answer's ids for each pair of grades ``[5, 5, A]`` int64, with marks still to be filled in.
        slots: where the two marks stand in an answer ``[2]`` int64.
        marks: the token of each mark ``[26]`` int64.
    """

    table: Tensor
    slots: Tensor
    marks: Tensor

    def filled(self, grades: Tensor, marks: Tensor) -> Tensor:
        """Return answers ``[..., A]`` from grades ``[..., 2]`` and whole marks ``[..., 2]``, both int64."""
        ids = self.table[grades[..., 0], grades[..., 1]]
        ids[..., self.slots] = self.marks[marks]
        return ids


class Form:
    """One question about many scenes, packed: what all candidates of a scene share is read once.

    A row is ``[shared | candidate 1 | ... | candidate C]``. Shared is everything before the edited image (for SC with
    the source image, for PQ the system message alone). A candidate's stretch goes on from there, its positions too, and
    sees the shared part and itself: what it computes is what it would compute alone, behind its own copy.

    Args:
        tokenizer: the judge's.
        prompts: the judge's.
        question: which of the two.
        instructions: of all scenes; each row is as long as the longest needs.
        count: C.
        device: where the tensors shall be.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompts: Prompts,
        question: Question,
        instructions: Sequence[str],
        count: int,
        device: torch.device,
    ) -> None:
        known = {text: prompt_ids(tokenizer, prompts, question, text) for text in set(instructions)}
        rows = [known[text] for text in instructions]
        answers = answer_form(tokenizer, question)
        size = answers.table.shape[-1]
        length = max(map(len, rows)) + size
        padded = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
        image = tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        example = torch.tensor(padded[0])
        self._shared = int((example == image).nonzero()[-IMAGE_TOKENS])
        self._own = length - self._shared
        self._count = count
        self._ids = torch.tensor(padded, device=device)
        self._starts = torch.tensor([len(row) for row in rows], device=device) - self._shared
        self._steps = torch.arange(size, device=device)
        self.answers = AnswerForm(*(part.to(device) for part in (answers.table, answers.slots, answers.marks)))
        places, shared = positions(example, image), self._shared
        packed = torch.cat([places[:, :shared], *[places[:, shared:]] * count], dim=1)
        shown = torch.cat([example[:shared], *[example[shared:]] * count]) == image
        self.layout = Layout(shown.nonzero()[:, 0].to(device), packed.to(device), self._mask().to(device))

    def pack(self, scenes: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Lay out scenes ``[B]`` with their candidates' answers ``[B, C, A]``.

        Returns:
            Ids ``[B, L]``, and the places ``[B, C, A]`` of the tokens that each answer token is predicted from.
        """
        prompts = self._ids[scenes]
        own = prompts[:, None, self._shared :].repeat(1, self._count, 1)
        start = self._starts[scenes][:, None, None] + self._steps
        own.scatter_(2, start.expand(-1, self._count, -1), answers)
        ids = torch.cat([prompts[:, : self._shared], own.flatten(1)], dim=1)
        offsets = self._shared + self._own * torch.arange(self._count, device=ids.device)
        return ids, offsets[:, None] + start - 1

    def _mask(self) -> Tensor:
        branch = torch.arange(self._count).repeat_interleave(self._own)
        branch = torch.cat([torch.full((self._shared,), -1), branch])
        related = (branch[:, None] == branch) | (branch == -1)
        return related & torch.ones_like(related).tril()


def prompt_ids(tokenizer: Any, prompts: Prompts, question: Question, instruction: str) -> list[int]:
    """Return the ids of one prompt, each image as the 64 placeholders that a server expands it to."""
    messages = chat(prompts.question(question), ["image"] * IMAGES[question], instruction, "qwen2_5_vl")
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text.replace(IMAGE_PAD, IMAGE_PAD * IMAGE_TOKENS)).input_ids
    return ids


def answer_form(tokenizer: Any, question: Question) -> AnswerForm:
    """Return the answers to one question as tensors."""
    grades = range(len(GRADES[question][0]))
    encoded = [[answer_ids(tokenizer, question, (a, b), (0, 0)) for b in grades] for a in grades]
    first, second = (answer_ids(tokenizer, question, (0, 0), marks) for marks in ((1, 0), (0, 1)))
    slots = [next(i for i, t in enumerate(ids) if t != encoded[0][0][i]) for ids in (first, second)]
    marks = tokenizer.convert_tokens_to_ids([str(mark) for mark in range(int(FULL_MARKS) + 1)])
    return AnswerForm(torch.tensor(encoded), torch.tensor(slots), torch.tensor(marks))


def answer_ids(tokenizer: Any, question: Question, grades: tuple[int, int], marks: tuple[int, int]) -> list[int]:
    """Return one answer's ids, the end of the turn included."""
    ids: list[int] = tokenizer(answer(question, grades, marks) + END_OF_TURN).input_ids
    return ids


def positions(ids: Tensor, image_token: int) -> Tensor:
    """Return the rotary positions ``[3, L]`` int64 (time, row, column) of one row of ids ``[L]``.

    As Qwen2.5-VL counts: text steps in all three, an image's tokens share the time and take their row and column, and
    the text after it goes on from the largest number used.
    """
    columns: list[Tensor] = []
    start, index = 0, 0
    grid = torch.stack([torch.zeros(IMAGE_TOKENS).long(), *_row_and_column()])
    while index < len(ids):
        if ids[index] == image_token:
            columns.append(grid + start)
            start, index = start + _SIDE, index + IMAGE_TOKENS
        else:
            columns.append(torch.full((3, 1), start))
            start, index = start + 1, index + 1
    return torch.cat(columns, dim=1)


def _row_and_column() -> tuple[Tensor, Tensor]:
    index = torch.arange(IMAGE_TOKENS)
    return index // _SIDE, index % _SIDE
