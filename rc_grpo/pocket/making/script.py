"""What the training scripts of the pocket models share: options, start, and what they leave beside a model."""

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

LOGGER = logging.getLogger(__name__)


def training_parser(
    doc: str | None, model: str, *, scenes: int, batch: int, batch_help: str, rate: float
) -> argparse.ArgumentParser:
    """Return the options of a training by wall-clock.

    Args:
        doc: of the script.
        model: what is trained, in a word.
        scenes: how many are composed.
        batch: of a step.
        batch_help: what that counts.
        rate: of learning, at its highest.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="training time, without preparation and scoring")
    parser.add_argument("--start", type=Path, help=f"go on from this {model}'s folder")
    parser.add_argument("--scenes", type=int, default=scenes)
    parser.add_argument("--batch", type=int, default=batch, help=batch_help)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="processes composing scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile what is trained")
    parser.add_argument("--bfloat16", action="store_true", help="train under bfloat16 autocast")
    return parser


def begin(options: argparse.Namespace) -> torch.device:
    """Set up logging, precision and the output folder, and return the device."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8.0f ms %(message)s")
    torch.set_float32_matmul_precision("high")
    # On an H200 with torch 2.11, the flow's loss was NaN under bfloat16 with cuDNN's attention allowed, finite
    # without it. One run each: the cause was not isolated further.
    torch.backends.cuda.enable_cudnn_sdp(False)
    options.out.mkdir(parents=True, exist_ok=True)
    return torch.device(options.device)


def finish(options: argparse.Namespace, report: dict[str, Any], kept: Sequence[str], **more: Any) -> None:
    """Write ``OUT/scores.json``: the scores, and how the model was trained.

    Args:
        options: of the script.
        report: scores.
        kept: names of the options that a training depends on.
        more: what else is to be known of it.
    """
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    settings = {key: getattr(options, key) for key in kept} | more
    where = {"device": name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    text = json.dumps(report | {"training": settings | where}, indent=2)
    (options.out / "scores.json").write_text(text + "\n", encoding="utf-8")
    LOGGER.info("%s", text)
