"""A regression head as a judge: source, edit and question go in, a number comes out (EditReward, arXiv 2509.26346)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.config import RewardHeadConfig
from rc_grpo.editor.geometry import resize_image
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.local import reward_head_loading
from reward_service.local.device import device_of
from reward_service.local.reward_head_loading import RewardModel
from reward_service.local.reward_head_prompts import HeadPrompts


class RewardHeadJudge:
    """Scores a group in one batch a question. The reward is on the head's own scale, which has no bounds.

    Args:
        config: how questions are asked and pooled.
        model: backbone, heads, processor.
        prompts: the questions.

    Raises:
        JudgeSetupError: there are several heads, and not as many questions.
    """

    def __init__(self, config: RewardHeadConfig, model: RewardModel, prompts: HeadPrompts) -> None:
        self.name = f"reward_head:{config.model}"
        self._config = config
        self._model = model
        self._prompts = prompts
        questions, heads = len(prompts.questions), len(model.heads)
        if heads not in (1, questions):
            raise JudgeSetupError(
                f"judge {config.model!r} has {heads} heads and its prompts have {questions} questions; write one each"
            )
        self._heads = model.heads if heads == questions else model.heads * questions

    @classmethod
    def load(cls, config: RewardHeadConfig) -> "RewardHeadJudge":
        """Load questions and model.

        Raises:
            JudgeSetupError: as of `reward_head_loading.load` and the class.
            PromptError: the questions cannot be used.
        """
        prompts = HeadPrompts.of(config)
        return cls(config, reward_head_loading.load(config, device_of(config)), prompts)

    @torch.inference_mode()
    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; the source is resized to them as for editing."""
        source = Image.fromarray(resize_image(decode_rgb(task.source), *images.shape[1:3]))
        shown = [[source, Image.fromarray(image)] for image in images]
        asked = self._prompts.filled(task.instruction, self._config.reward_token)
        marks = [
            head(self._read(question, shown))[:, 0].tolist() for head, question in zip(self._heads, asked, strict=True)
        ]
        return [self._verdict(row) for row in zip(*marks, strict=True)]

    def _verdict(self, marks: Sequence[float]) -> Verdict:
        if not all(map(math.isfinite, marks)):
            return Verdict.failure(f"{self.name} gave {', '.join(map(str, marks))}")
        total = {"mean": math.fsum(marks) / len(marks), "min": min(marks), "sum": math.fsum(marks)}
        return Verdict(total[self._config.pooling], reason="heads: " + ", ".join(f"{mark:.4f}" for mark in marks))

    def _read(self, question: str, shown: Sequence[Sequence[Any]]) -> Tensor:
        """Return the hidden states ``[G, D]`` float32 at the reward token of each."""
        places = [{"type": "image"}, {"type": "image"}]
        message = {"role": "user", "content": [*places, {"type": "text", "text": question}]}
        text = self._model.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        inputs = self._model.processor(
            text=[text] * len(shown),
            images=[list(pair) for pair in shown],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        ).to(next(self._model.backbone.parameters()).device)
        if self._config.positions == "sequential":
            inputs["position_ids"] = _one_after_the_other(inputs["attention_mask"])
        hidden = self._model.backbone(**inputs, use_cache=False).last_hidden_state
        at = inputs["input_ids"] == self._model.reward_token_id
        return hidden[at].reshape(len(shown), -1).float()


def _one_after_the_other(mask: Tensor) -> Tensor:
    """Return positions ``[3, B, L]`` that count tokens, alike in time, row and column."""
    counted = (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 1)
    return counted[None].expand(3, -1, -1)
