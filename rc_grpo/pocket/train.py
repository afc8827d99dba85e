"""How the pocket editors were made, in sittings: ``python -m rc_grpo.pocket.train --part vae|flow|model --out DIR``.

``vae`` trains the autoencoder, ``flow`` the editor on its latents, ``model`` joins what they left under ``OUT/model``.
Every sitting is cut by wall-clock, so that a laptop can run the script, too, for a worse editor; it leaves a state in
OUT from which the next goes on with ``--start``. ``--editor`` names the one of `rc_grpo.pocket.editors` to train.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rc_grpo.pocket import editors, evaluate
from rc_grpo.pocket.editors.protocol import PocketEditor
from rc_grpo.pocket.making.crops import Crops
from rc_grpo.pocket.making.flow import prepare, train_flow
from rc_grpo.pocket.making.flow_state import FlowState
from rc_grpo.pocket.making.pairs import compose, generate
from rc_grpo.pocket.making.script import begin, finish, training_parser
from rc_grpo.pocket.making.sitting import has_state
from rc_grpo.pocket.making.vae import load_vae, psnr, save_vae, train_vae
from rc_grpo.pocket.photographs import photographs

LOGGER = logging.getLogger(__name__)
_KEPT = ("part", "minutes", "batch", "rate", "seed", "compile", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do one part; see the module."""
    options = _options(arguments)
    device = begin(options)
    torch.manual_seed(options.seed)
    {"vae": _vae, "flow": _flow, "model": _model}[options.part](options, editors.named(options.editor), device)


def _vae(options: argparse.Namespace, editor: PocketEditor, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(options.seed)
    heldout = generate("heldout", options.eval_scenes, options.workers, device)
    vae = editor.build_vae()
    if options.start:
        load_vae(vae, options.start)
    crops = Crops(photographs("train"), options.views, device, generator)
    LOGGER.info("%d crops", len(crops))
    seconds = 60 * options.minutes
    train_vae(editor, vae, crops, heldout, seconds, options.batch, options.rate, compiled=options.compile)
    save_vae(vae, options.out)
    finish(options, {"vae_reconstruction_psnr_db": round(psnr(vae, heldout), 2)}, (*_KEPT, "views"))


def _flow(options: argparse.Namespace, editor: PocketEditor, device: torch.device) -> None:
    pipeline, state = _begun(options, editor, device)
    indices = range(state.scenes, state.scenes + options.scenes)
    generator = torch.Generator(device).manual_seed(options.seed + state.step)
    data = prepare(editor, pipeline, compose("train", indices, options.variants, options.workers), device)
    LOGGER.info("%d scenes composed and encoded", options.scenes)
    state.scenes = indices.stop
    train_flow(
        state,
        data,
        60 * options.minutes,
        60 * (options.total or options.minutes),
        options.batch,
        options.rate,
        generator,
        lambda: state.save(options.out),
        compiled=options.compile,
        bfloat16=options.bfloat16,
    )
    LOGGER.info("saved")
    del data
    # The averaged copies, not the modules trained: those may be compiled.
    editor.install(pipeline, state.result())
    report = evaluate.scores(pipeline, options.eval_tasks, options.eval_noises)
    trained = {"steps": state.step, "seconds": round(state.seconds), "scenes_composed": state.scenes}
    finish(options, report, (*_KEPT, "total", "scenes", "variants"), **trained)
    evaluate.grid(pipeline, 12).save(options.out / "heldout_edits.png", optimize=True)


def _model(options: argparse.Namespace, editor: PocketEditor, device: torch.device) -> None:
    pipeline, state = _begun(options, editor, device)
    editor.install(pipeline, state.result())
    editor.save(pipeline, options.out / "model")
    LOGGER.info("%s is the editor after %d steps", options.out / "model", state.step)


def _begun(options: argparse.Namespace, editor: PocketEditor, device: torch.device) -> tuple[Any, FlowState]:
    pipeline = editor.build_pipeline(options.seed)
    load_vae(pipeline.vae, options.vae)
    pipeline.to(device)
    state = FlowState(editor.field(pipeline))
    if options.part == "model" or options.start:
        state.load(options.start)
    return pipeline, state


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = training_parser(__doc__, "part", scenes=40_000, batch=768, batch_help="of a step", rate=1.5e-3)
    parser.add_argument("--part", choices=("vae", "flow", "model"), required=True)
    parser.add_argument("--editor", choices=editors.NAMES, default=editors.NAMES[0])
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder's sitting, for the other parts")
    parser.add_argument("--total", type=float, help="minutes planned for all sittings of the flow; the rate goes by it")
    parser.add_argument("--views", type=int, default=252, help="crops of each photograph that the autoencoder sees")
    parser.add_argument("--variants", type=int, default=4, help="outcomes of a scene")
    parser.add_argument("--eval-scenes", type=int, default=300, help="held-out scenes for the autoencoder")
    parser.add_argument("--eval-tasks", type=int, default=48)
    parser.add_argument("--eval-noises", type=int, default=12, help="edits of each")
    options = parser.parse_args(arguments)
    if options.part != "vae" and not (options.vae and has_state(options.vae, "vae")):
        parser.error(f"--part {options.part} needs --vae FOLDER, where --part vae left its files")
    if options.part == "model" and not options.start:
        parser.error("--part model needs --start FOLDER, where --part flow left its files")
    return options


if __name__ == "__main__":
    main()
