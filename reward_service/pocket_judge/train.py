"""How the pocket judge was made: ``python -m reward_service.pocket_judge.train --out DIR [--device cuda]``.

Scenes are composed and edited once; every step then makes new edits from them, has the teacher mark them, and asks the
questions about them. The training is cut by wall-clock, so that a laptop can run the script, too, for a worse judge.
"""

import argparse
import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from rc_grpo.pocket.batches import PocketBatches
from rc_grpo.pocket.making.clock import Clock
from rc_grpo.pocket.making.pairs import Scenes, generate
from rc_grpo.pocket.making.script import begin, finish, training_parser
from rc_grpo.pocket.photographs import Split
from reward_service.contract import QUESTIONS, Question
from reward_service.pocket_judge import PROMPTS_PATH
from reward_service.pocket_judge.architecture import build_model, save
from reward_service.pocket_judge.batches import label, make
from reward_service.pocket_judge.edits import CANDIDATES, candidates
from reward_service.pocket_judge.evaluate import agreement, judge
from reward_service.pocket_judge.learning import Lesson, Losses, Pupil
from reward_service.pocket_judge.material import pick, stamps
from reward_service.pocket_judge.network import Network
from reward_service.pocket_judge.rollouts import EDITS, Rollouts, roll_out
from reward_service.pocket_judge.sequences import Form
from reward_service.pocket_judge.tokenizer import build_tokenizer
from reward_service.prompts import Prompts

LOGGER = logging.getLogger(__name__)

WORLD_SEED = 2
"""The world the judge is trained on; the editor's is 1, reinforcement learning's is 0."""

_EMA = 0.999
_KEPT = ("minutes", "scenes", "batch", "rate", "seed", "compile", "bfloat16")


@dataclass(frozen=True)
class Studio:
    """Scenes, what the editor made of them, and objects to misplace, on one device."""

    scenes: Scenes
    rollouts: Rollouts
    stamps: Tensor
    generator: torch.Generator


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save under ``OUT/model``, score on held-out photographs, and write ``OUT/scores.json``."""
    options = _options(arguments)
    device = begin(options)
    prompts = Prompts.load(PROMPTS_PATH)
    studio = _studio("train", options.scenes, options, device)
    heldout = _studio("heldout", options.eval_tasks, options, device)

    if options.start:
        tokenizer = AutoTokenizer.from_pretrained(options.start)
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(options.start, dtype=torch.float32)
    else:
        tokenizer = build_tokenizer(prompts)
        model = build_model(tokenizer, options.seed)
    steps = train(model, tokenizer, prompts, studio, options)
    save(model, tokenizer, options.out / "model")
    LOGGER.info("saved after %d steps", steps)

    report = score(options.out / "model", prompts, heldout, options.eval_batch)
    finish(options, report, _KEPT, steps=steps)


def train(model: Any, tokenizer: Any, prompts: Prompts, studio: Studio, options: argparse.Namespace) -> int:
    """Train for the minutes asked for, leave averaged weights in the model, and return the number of steps."""
    device, generator = studio.stamps.device, studio.generator
    forms: dict[Question, Form] = {
        question: Form(tokenizer, prompts, question, studio.scenes.instructions, CANDIDATES, device)
        for question in QUESTIONS
    }
    pupil = Pupil(Network(model), forms).to(device).train()
    average = copy.deepcopy(model)
    decayed = [weight for weight in pupil.parameters() if weight.dim() > 1]
    others = [weight for weight in pupil.parameters() if weight.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=options.rate,
        betas=(0.9, 0.98),
        fused=device.type == "cuda",
    )
    answer = torch.compile(pupil) if options.compile else pupil
    # The budget starts after the first step: in a compiled run that one is the compiler's.
    clock, step = Clock(math.inf), 0
    while clock.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = clock.learning_rate(options.rate) if step else 0.0
        rows = torch.randint(len(studio.scenes), (options.batch,), device=device, generator=generator)
        with torch.no_grad():
            batch = make(pick(studio.scenes, studio.rollouts, studio.stamps, rows, generator))
            lesson = Lesson(forms, rows, batch, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16):
            results = answer(batch.source, batch.edited, lesson.rows)
        losses = lesson.losses(results)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimizer.step()
        step += 1
        _follow(average, model, step)
        if step == 1:
            losses.total.item()
            clock = Clock(60 * options.minutes)
        if step % options.log_every == 0:
            _log(step, clock.progress, losses)
    model.load_state_dict(average.state_dict())
    model.eval()
    return step


def score(folder: Path, prompts: Prompts, studio: Studio, batch: int) -> dict[str, Any]:
    """Judge groups of edits with a saved model, by the marks it writes and by those it expects."""
    device = studio.stamps.device
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    rows = torch.arange(len(studio.scenes), device=device)
    scenes = pick(studio.scenes, studio.rollouts, studio.stamps, rows, studio.generator)
    made = candidates(scenes)[:, 2:]
    edited = torch.cat([studio.rollouts.edits / 255, studio.rollouts.improved / 255, made], dim=1)
    labelled = label(scenes.source, scenes.target, scenes.inside, edited)
    answers = judge(model, tokenizer, prompts, studio.scenes.instructions, scenes.source, edited, batch)
    truth = labelled.marks.double().cpu().numpy()
    report: dict[str, Any] = {"tasks": len(rows), "candidates_per_task": edited.shape[1]}
    for name, judged in (("greedy", answers.said), ("expected", answers.expected)):
        report[name] = {
            "all": agreement(truth, judged),
            "editor_only": agreement(truth[:, :EDITS], judged[:, :EDITS]),
        }
    return report


def _studio(split: Split, size: int, options: argparse.Namespace, device: torch.device) -> Studio:
    generator = torch.Generator(device).manual_seed(options.seed)
    scenes = generate(split, size, options.workers, device, WORLD_SEED)
    LOGGER.info("%d %s scenes composed", size, split)
    rollouts = roll_out(PocketBatches.load(device), scenes, options.edit_batch, generator)
    LOGGER.info("and edited")
    return Studio(scenes, rollouts, stamps(device), generator)


@torch.no_grad()
def _follow(average: torch.nn.Module, model: torch.nn.Module, step: int) -> None:
    """Move an average of the weights over a growing number of steps, so that a short run forgets its start, too."""
    share = max(1 - _EMA, 1 / (1 + step / 10))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), share)


def _log(step: int, progress: float, losses: Losses) -> None:
    total = losses.total.item()
    if not math.isfinite(total):
        raise FloatingPointError(f"the loss is {total} at step {step}")
    LOGGER.info(
        "step %d, %.0f %% of its time, loss %.4f: words %.3f, marks %.3f, maps %.4f; RMS error in marks %s",
        step,
        100 * progress,
        total,
        losses.words.item(),
        losses.marks.item(),
        losses.maps.item(),
        " ".join(f"{error:.2f}" for error in losses.errors.tolist()),
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    counted = f"scenes a step, each with {CANDIDATES} edits"
    parser = training_parser(__doc__, "judge", scenes=24_000, batch=128, batch_help=counted, rate=1e-3)
    parser.add_argument("--edit-batch", type=int, default=256, help="scenes the editor edits at once")
    parser.add_argument("--eval-tasks", type=int, default=192, help="held-out tasks")
    parser.add_argument("--eval-batch", type=int, default=256, help="questions asked at once")
    parser.add_argument("--log-every", type=int, default=100)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
