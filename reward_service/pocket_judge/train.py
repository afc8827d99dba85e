"""How the pocket judge was made: ``python -m reward_service.pocket_judge.train --out DIR [--device cuda]``.

Scenes are composed and edited once; every step then makes new edits from them, has the teacher mark them, and asks the
questions about them. The training is cut by wall-clock, so that a laptop can run the script, too, for a worse judge.
"""

import argparse
import copy
import json
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from rc_grpo.pocket import MODEL_PATH as EDITOR_PATH
from rc_grpo.pocket.clock import Clock
from rc_grpo.pocket.pairs import Scenes, generate
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
from reward_service.pocket_judge.rollouts import EDITS, BatchEditor, Rollouts
from reward_service.pocket_judge.sequences import Form
from reward_service.pocket_judge.tokenizer import build_tokenizer
from reward_service.prompts import Prompts

LOGGER = logging.getLogger(__name__)

WORLD_SEED = 2
"""The world the judge is trained on; the editor's is 1, reinforcement learning's is 0."""

_EMA = 0.999


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
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8.0f ms %(message)s")
    device = torch.device(options.device)
    torch.set_float32_matmul_precision("high")
    # See rc_grpo.pocket.train: cuDNN's attention gave NaN there.
    torch.backends.cuda.enable_cudnn_sdp(False)
    options.out.mkdir(parents=True, exist_ok=True)
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
    report["training"] = _training(options, steps, time.strftime("%Y-%m-%d"))
    (options.out / "scores.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    LOGGER.info("%s", json.dumps(report, indent=2))


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
    pipeline = FluxKontextPipeline.from_pretrained(EDITOR_PATH)
    rollouts = BatchEditor(pipeline, device).roll_out(scenes, options.edit_batch, generator)
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


def _training(options: argparse.Namespace, steps: int, date: str) -> dict[str, Any]:
    kept = ("minutes", "scenes", "batch", "rate", "seed", "compile", "bfloat16")
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    settings = {key: getattr(options, key) for key in kept}
    return {**settings, "steps": steps, "device": name, "torch": torch.__version__, "date": date}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="training time, without preparation and scoring")
    parser.add_argument("--start", type=Path, help="go on from this judge's folder")
    parser.add_argument("--scenes", type=int, default=24_000)
    parser.add_argument("--batch", type=int, default=128, help=f"scenes a step, each with {CANDIDATES} edits")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--edit-batch", type=int, default=256, help="scenes the editor edits at once")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="processes composing scenes")
    parser.add_argument("--eval-tasks", type=int, default=192, help="held-out tasks")
    parser.add_argument("--eval-batch", type=int, default=256, help="questions asked at once")
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the network")
    parser.add_argument("--bfloat16", action="store_true", help="train under bfloat16 autocast")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
