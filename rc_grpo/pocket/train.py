"""How the pocket editor was made: ``python -m rc_grpo.pocket.train --out DIR [--device cuda] [--minutes 8]``.

First the autoencoder, then the flow, then its scores on held-out photographs. Every phase is cut by wall-clock, so that
a laptop can run the script, too, for a worse editor.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline

from rc_grpo.pocket import evaluate
from rc_grpo.pocket.architecture import build_pipeline, save
from rc_grpo.pocket.flow import prepare, train_flow
from rc_grpo.pocket.pairs import generate
from rc_grpo.pocket.vae import psnr, train_vae

LOGGER = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save under ``OUT/model``, score, and write ``OUT/scores.json`` and ``OUT/heldout_edits.png``."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8.0f ms %(message)s")
    device = torch.device(options.device)
    torch.set_float32_matmul_precision("high")
    # On an H200 with torch 2.11, the flow's loss was NaN under bfloat16 with cuDNN's attention allowed, finite
    # without it. One run each: the cause was not isolated further.
    torch.backends.cuda.enable_cudnn_sdp(False)
    generator = torch.Generator(device).manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    scenes = generate("train", options.scenes, options.workers, device)
    heldout = generate("heldout", options.eval_scenes, options.workers, device)
    LOGGER.info("%d scenes composed", len(scenes))
    pipeline = FluxKontextPipeline.from_pretrained(options.start) if options.start else build_pipeline(options.seed)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)

    seconds = 60 * options.minutes
    if options.vae_share:
        budget = options.vae_share * seconds
        train_vae(pipeline.vae, scenes, budget, options.vae_batch, options.vae_rate, generator)
        seconds -= budget
    reconstruction = psnr(pipeline.vae, heldout)
    LOGGER.info("held-out reconstruction %.2f dB", reconstruction)
    save(pipeline, options.out / "model")

    data = prepare(pipeline, scenes, options.variants, generator)
    LOGGER.info("latents prepared")
    del scenes
    train_flow(pipeline, data, seconds, options.batch, options.rate, options.compile, options.bfloat16, generator)
    save(pipeline, options.out / "model")
    LOGGER.info("saved")

    report = evaluate.scores(pipeline, options.eval_tasks, options.eval_seeds)
    report["vae_reconstruction_psnr_db"] = round(reconstruction, 2)
    report["training"] = _training(options, time.strftime("%Y-%m-%d"))
    (options.out / "scores.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    evaluate.grid(pipeline, 12).save(options.out / "heldout_edits.png", optimize=True)
    LOGGER.info("%s", json.dumps(report, indent=2))


def _training(options: argparse.Namespace, date: str) -> dict[str, Any]:
    kept = ("minutes", "scenes", "variants", "batch", "rate", "vae_batch", "vae_rate", "seed", "compile", "bfloat16")
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    return {**{key: getattr(options, key) for key in kept}, "device": name, "torch": torch.__version__, "date": date}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="training time, without preparation and scoring")
    parser.add_argument("--start", type=Path, help="go on from this editor's folder")
    parser.add_argument(
        "--vae-share", type=float, default=0.3, help="the autoencoder's share of the minutes; 0 keeps it"
    )
    parser.add_argument("--vae-batch", type=int, default=128)
    parser.add_argument("--vae-rate", type=float, default=2e-3)
    parser.add_argument("--scenes", type=int, default=40_000)
    parser.add_argument("--variants", type=int, default=4, help="noisy targets a scene")
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="processes composing scenes")
    parser.add_argument("--eval-scenes", type=int, default=300, help="held-out scenes for the autoencoder")
    parser.add_argument("--eval-tasks", type=int, default=48)
    parser.add_argument("--eval-seeds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    parser.add_argument("--bfloat16", action="store_true", help="train the flow under bfloat16 autocast")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
