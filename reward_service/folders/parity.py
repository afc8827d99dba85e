"""Whether two judges are the same judge: their logits over an answer to real questions.

The questions are the judge's own, about pictures of the pocket world, and go through the model's own processor and chat
template, so that the vision side is part of what is compared. An answer is laid into the judge's mouth and the logits
along it are compared: these are the positions at which a judge writes its reasoning and its scores.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld
from reward_service.contract import QUESTIONS, Question
from reward_service.folders.judge_folder import Parity
from reward_service.prompts import DEFAULT_PROMPTS, Family, Prompts, chat

ANSWER = '{"reasoning": "The edit was made where it was asked for, and all else is as it was.", "score": [21, 24]}'
"""An answer within the contract; which one does not matter, only that both models are asked along it."""

TASKS = 2
"""Tasks to ask about, two questions each: enough for hundreds of positions, few enough for a CPU and 7B weights."""


class ParityError(ValueError):
    """Two models that should answer alike do not, or cannot be told apart from a third; the message gives figures."""


class Questionnaire:
    """The judge's questions about a few pocket edits, as a model's inputs.

    Args:
        processor: the model's own.
        family: how images are introduced.
    """

    def __init__(self, processor: Any, family: Family) -> None:
        prompts = Prompts.load(DEFAULT_PROMPTS)
        self._answered = len(processor.tokenizer(ANSWER)["input_ids"])
        self._inputs = [
            _inputs(processor, prompts, question, task, family)
            for task in PocketWorld("heldout", TASKS)
            for question in QUESTIONS
        ]

    @torch.inference_mode()
    def logits(self, model: nn.Module) -> Tensor:
        """Return a model's logits along the answers, ``[positions, vocabulary]`` float32."""
        model.eval()
        # One more than the answer's tokens: the position before it is where the judge decides how to begin.
        kept = self._answered + 1
        return torch.cat([model(**inputs, logits_to_keep=kept).logits[0].float() for inputs in self._inputs])


def compare(unmerged: Tensor, base: Tensor, merged: Tensor, tolerance: float) -> Parity:
    """Measure a merged judge against base and adapter unmerged.

    The bound is relative to what the adapter does: an absolute one would pass a weak adapter that was lost altogether.

    Args:
        unmerged: logits of base and adapter, ``[positions, vocabulary]``.
        base: logits of the base alone.
        merged: logits of the merged model.
        tolerance: bound on max |merged - unmerged| as a share of max |unmerged - base|.

    Raises:
        ParityError: the bound does not hold, or logits are not finite.
    """
    effect, error = _furthest(unmerged, base), _furthest(merged, unmerged)
    # Written so that NaN fails.
    if not error <= tolerance * effect:
        raise ParityError(
            f"the merged judge does not answer like base and adapter: logits differ by up to {error:.4g}, more than "
            f"{tolerance:g} of the {effect:.4g} by which the adapter moves them. If the adapter is a weak one, this "
            "may be rounding: merge with --dtype float32, whose bound is tight"
        )
    return Parity(
        positions=len(unmerged),
        effect=effect,
        error=error,
        tolerance=tolerance,
        top1_agreement=_agreement(merged, unmerged),
        top1_agreement_base=_agreement(base, unmerged),
    )


def require_effect(unmerged: Tensor, base: Tensor) -> None:
    """Refuse an adapter that changes no logit.

    Raises:
        ParityError: it changes none, or makes them NaN.
    """
    if not _furthest(unmerged, base) > 0.0:
        raise ParityError(
            "the adapter changes no logit of the base, or makes them NaN: it is untrained or broken, and a judge "
            "merged from it would be the base under another name"
        )


def _inputs(processor: Any, prompts: Prompts, question: Question, task: EditTask, family: Family) -> dict[str, Tensor]:
    pictures = _pictures(question, task)
    # The addresses only tell the template where pictures stand; the pictures themselves are handed to the processor.
    messages = chat(prompts.question(question), ["picture"] * len(pictures), task.instruction, family)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return dict(processor(text=[text + ANSWER], images=pictures, return_tensors="pt"))


def _pictures(question: Question, task: EditTask) -> list[Image.Image]:
    if task.target is None:
        raise ValueError(f"task {task.task_id} has no target to show to the judge")
    shown = [task.source, task.target] if question == "sc" else [task.target]
    return [Image.fromarray(decode_rgb(png)) for png in shown]


def _furthest(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


def _agreement(left: Tensor, right: Tensor) -> float:
    return float((left.argmax(-1) == right.argmax(-1)).float().mean())
