"""How the pocket editor was made: ``python -m rc_grpo.pocket.train --out DIR [--device cuda] [--minutes 8]``.

First the autoencoder, then the flow, then its scores on held-out photographs. Every phase is cut by wall-clock, so that
a laptop can run the script, too, for a worse editor.
"""

import argparse
import logging
from collections.abc import Sequence

import torch
from diffusers import FluxKontextPipeline

from rc_grpo.pocket import evaluate
from rc_grpo.pocket.architecture import build_pipeline, save
from rc_grpo.pocket.flow import prepare, train_flow
from rc_grpo.pocket.pairs import generate
from rc_grpo.pocket.script import begin, finish, training_parser
from rc_grpo.pocket.vae import psnr, train_vae

LOGGER = logging.getLogger(__name__)
_KEPT = ("minutes", "scenes", "variants", "batch", "rate", "vae_batch", "vae_rate", "seed", "compile", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save under ``OUT/model``, score, and write ``OUT/scores.json`` and ``OUT/heldout_edits.png``."""
    options = _options(arguments)
    device = begin(options)
    generator = torch.Generator(device).manual_seed(options.seed)
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
    finish(options, report, _KEPT)
    evaluate.grid(pipeline, 12).save(options.out / "heldout_edits.png", optimize=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = training_parser(__doc__, "editor", scenes=40_000, batch=768, batch_help="of the flow", rate=1.5e-3)
    parser.add_argument(
        "--vae-share", type=float, default=0.3, help="the autoencoder's share of the minutes; 0 keeps it"
    )
    parser.add_argument("--vae-batch", type=int, default=128)
    parser.add_argument("--vae-rate", type=float, default=2e-3)
    parser.add_argument("--variants", type=int, default=4, help="noisy targets a scene")
    parser.add_argument("--eval-scenes", type=int, default=300, help="held-out scenes for the autoencoder")
    parser.add_argument("--eval-tasks", type=int, default=48)
    parser.add_argument("--eval-seeds", type=int, default=8)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
