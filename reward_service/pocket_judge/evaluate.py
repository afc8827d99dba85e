"""How well a judge's marks order edits, against the teacher's: agreement overall, and within candidates of one task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rc_grpo.evaluation.likeness import correlation, spearman
from reward_service.contract import QUESTIONS, SUBSCORES, AnswerError, Question, parse_answer
from reward_service.judge import FULL_MARKS
from reward_service.pocket_judge.architecture import IMAGE_TOKENS, MERGE
from reward_service.pocket_judge.network import pixel_values
from reward_service.pocket_judge.sequences import IMAGES, answer_form, prompt_ids
from reward_service.prompts import Prompts

CLEAR = 0.1
"""Difference of true rewards, of 0..1, that a judge must not get wrong."""

Marks = NDArray[np.float64]


@dataclass(frozen=True)
class Judgements:
    """What a model answered about tasks with candidates each, ``[tasks, candidates, 4]``.

    Attributes:
        said: the marks it wrote, NaN where that is no answer.
        expected: the mean of the distribution it wrote them from, NaN likewise.
    """

    said: Marks
    expected: Marks


def judge(
    model: Any,
    tokenizer: Any,
    prompts: Prompts,
    instructions: Sequence[str],
    source: Tensor,
    edited: Tensor,
    batch: int,
) -> Judgements:
    """Ask a Hugging Face model both questions by greedy decoding.

    Args:
        model: the judge on its device.
        tokenizer: the judge's.
        prompts: the judge's.
        instructions: one a task.
        source: ``[B, 3, 128, 128]`` in 0..1 on the model's device.
        edited: ``[B, C, 3, 128, 128]``.
        batch: questions at once.
    """
    count = edited.shape[1]
    texts = [text for text in instructions for _ in range(count)]
    pairs = torch.stack([source[:, None].expand_as(edited), edited], dim=2).flatten(0, 1)
    answers = []
    for question in QUESTIONS:
        images = pairs[:, -IMAGES[question] :]
        parts = [
            _ask(model, tokenizer, prompts, question, texts[start : start + batch], images[start : start + batch])
            for start in range(0, len(texts), batch)
        ]
        answers.append(np.concatenate(parts, axis=1).reshape(2, -1, count, 2))
    said, expected = np.concatenate(answers, axis=-1)
    return Judgements(said, expected)


def rewards(marks: Marks) -> NDArray[np.float64]:
    """Aggregate marks ``[..., 4]`` as EditScore does, to 0..1."""
    consistency, quality = marks[..., :2].min(axis=-1), marks[..., 2:].min(axis=-1)
    result: NDArray[np.float64] = np.sqrt(consistency * quality) / FULL_MARKS
    return result


def agreement(truth: Marks, judged: Marks) -> dict[str, float | None]:
    """Compare marks ``[tasks, candidates, 4]``; unreadable answers are left out.

    Returns:
        ``spearman`` of the rewards and ``spearman_*`` of each sub-score, over everything; ``pairwise_accuracy`` over
        ``pairs`` of candidates of one task whose true rewards differ clearly (a tie is half right), and
        ``pairwise_accuracy_any`` over all pairs; ``within_group_correlation`` of the rewards less their task's mean,
        which is what advantages are made of; ``unreadable``, a share. None where it is undefined.
    """
    true, mine = rewards(truth), rewards(judged)
    readable = np.isfinite(mine)
    names = [name for question in QUESTIONS for name in SUBSCORES[question]]
    report = {"spearman": spearman(true[readable], mine[readable])}
    for column, name in enumerate(names):
        report[f"spearman_{name}"] = spearman(truth[readable][:, column], judged[readable][:, column])
    first, second = np.triu_indices(true.shape[1], 1)
    gap, seen = true[:, first] - true[:, second], mine[:, first] - mine[:, second]
    right = np.where(seen == 0, 0.5, np.sign(seen) == np.sign(gap))
    clear = (np.abs(gap) >= CLEAR) & np.isfinite(seen)
    some = (gap != 0) & np.isfinite(seen)
    report["pairs"] = float(clear.sum())
    report["pairwise_accuracy"] = float(right[clear].mean()) if clear.any() else float("nan")
    report["pairwise_accuracy_any"] = float(right[some].mean()) if some.any() else float("nan")
    whole = readable.all(axis=1)
    centred = [values[whole] - values[whole].mean(axis=1, keepdims=True) for values in (true, mine)]
    report["within_group_correlation"] = correlation(*(values.ravel() for values in centred))
    report["unreadable"] = float(1 - readable.mean())
    return {name: round(value, 4) if np.isfinite(value) else None for name, value in report.items()}


def _ask(
    model: Any, tokenizer: Any, prompts: Prompts, question: Question, instructions: Sequence[str], images: Tensor
) -> NDArray[np.float64]:
    """Return said and expected marks ``[2, B, 2]``."""
    form, device = answer_form(tokenizer, question), images.device
    rows = [prompt_ids(tokenizer, prompts, question, text) for text in instructions]
    padded = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt").to(device)
    side = MERGE * round(IMAGE_TOKENS**0.5)
    output = model.generate(
        **padded,
        pixel_values=pixel_values(images.flatten(0, 1)).to(model.dtype),
        image_grid_thw=torch.tensor([[1, side, side]] * images.shape[0] * images.shape[1], device=device),
        mm_token_type_ids=(padded["input_ids"] == model.config.image_token_id).int(),
        max_new_tokens=form.table.shape[-1],
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    texts = tokenizer.batch_decode(output.sequences[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
    said = np.array([_marks(text) for text in texts])
    # An answer that is none may be too short to hold a mark at all.
    missing = form.table.shape[-1] - len(output.logits)
    logits = functional.pad(torch.stack(output.logits, dim=1).float(), (0, 0, 0, missing), value=float("nan"))
    chances = logits[:, form.slots][..., form.marks.to(device)].softmax(dim=-1)
    expected = (chances * torch.arange(chances.shape[-1], device=device)).sum(dim=-1).double().cpu().numpy()
    return np.stack([said, np.where(np.isnan(said), np.nan, expected)])


def _marks(text: str) -> tuple[float, float]:
    try:
        return parse_answer(text).score
    except AnswerError:
        return (float("nan"), float("nan"))
