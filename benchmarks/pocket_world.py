"""What the pocket world leaves to learn: its autoencoder, and the spread of the packaged editor's candidates.

Real rollouts, as training makes them: groups of candidates of the packaged editor on held-out tasks, from noises that
are near one another inside the mask and nearer outside it. Beside them, in the detail, groups from independent noises,
and edits painted in each mode. The ground-truth judge scores all.
"""

import argparse
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import results
from benchmarks.results import Figure
from deploy.configs import load_config
from rc_grpo.config import RunConfig
from rc_grpo.editor.loading import load_editor
from rc_grpo.messages import EditTask, PolicyVersion, RolloutSeeds
from rc_grpo.pocket import MODEL_PATH
from rc_grpo.pocket.evaluate import SUCCESS_REWARD, edit, world_figures
from rc_grpo.pocket.making.pairs import generate, to_float
from rc_grpo.pocket.making.vae import psnr
from rc_grpo.pocket.modes import MODES, outcome
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.seeds import derive
from reward_service.ground_truth import GroundTruthJudge
from rollout_workers.rollout import prepare, roll_out

WORLD_SEED = 4
"""Neither the training's worlds nor those that runs and the judge's benchmark evaluate on."""

MODES_SEED = 5

POLICY = PolicyVersion(0, "packaged", 0, is_identity=True)

Edits = Sequence[tuple[EditTask, NDArray[np.uint8]]]


def rollouts(config: RunConfig, tasks: Sequence[EditTask], group: int) -> Edits:
    """Return each task with a group of candidates, as a run of this configuration makes them."""
    editor = load_editor(config.editor, config.seed)
    settings = config.rollout.model_copy(update={"group_size": group})
    found = []
    for task in track(tasks, "rolling out"):
        seeds = RolloutSeeds.for_group(config.seed, 0, task.task_id, group)
        made = roll_out(editor, task.task_id, prepare(editor, task, settings), seeds, POLICY, settings)
        found.append((task, made.images))
    return found


def independent(pipeline: Any, tasks: Sequence[EditTask], group: int, steps: int) -> Edits:
    """Return each task with as many edits from unrelated noises, through diffusers' pipeline."""
    return [
        (task, (255 * edit(pipeline, task, range(group), steps)).round().astype(np.uint8))
        for task in track(tasks, "unrelated noises")
    ]


def modes(vae: Any, tasks: int) -> dict[str, dict[str, float]]:
    """Return what the ground truth gives each mode of an edit, painted and seen through the autoencoder."""
    world, judge = PocketWorld("heldout", tasks, seed=MODES_SEED), GroundTruthJudge()
    rewards: dict[str, list[float]] = {mode: [] for mode in MODES}
    for index in track(range(tasks), "modes"):
        plan, task = world.plan(index), world[index]
        background = plan.view.pixels()
        rng = random.Random(derive("modes", index))
        painted = torch.from_numpy(np.stack([outcome(plan, background, mode, rng) for mode in MODES]))
        seen = rebuilt(vae, painted.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        for mode, verdict in zip(MODES, judge.score(task, seen), strict=True):
            rewards[mode].append(verdict.reward)
    return {
        mode: {
            "mean": float(np.mean(of)),
            "least": min(of),
            "most": max(of),
            **{f"share_from_{bar:.2f}": float(np.mean(np.array(of) >= bar)) for bar in (0.65, SUCCESS_REWARD, 0.8)},
        }
        for mode, of in rewards.items()
    }


@torch.no_grad()
def rebuilt(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Return images ``[B, 3, H, W]`` uint8 through the autoencoder."""
    decoded = vae.decode(vae.encode(to_float(images)).latent_dist.mean).sample
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()


def figures_of(edits: Edits) -> dict[str, float]:
    """Score the edits by the ground truth and return `world_figures`."""
    judge = GroundTruthJudge()
    return world_figures(edits, [[verdict.reward for verdict in judge.score(task, images)] for task, images in edits])


def main() -> None:
    """Measure and write ``results/pocket_world.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--group", type=int, default=12)
    parser.add_argument("--scenes", type=int, default=300, help="held-out sources for the autoencoder")
    options = parser.parse_args()
    torch.set_num_threads(2)
    config = load_config("pocket")
    tasks = list(PocketWorld("heldout", options.tasks, seed=WORLD_SEED))
    pipeline = FluxKontextPipeline.from_pretrained(MODEL_PATH)
    pipeline.set_progress_bar_config(disable=True)
    reconstruction = psnr(pipeline.vae, generate("heldout", options.scenes, 2, torch.device("cpu")))
    found = figures_of(rollouts(config, tasks, options.group))
    spread = f"{options.tasks} held-out tasks, {options.group} candidates each, as a run rolls them out"
    figures = {
        "vae_psnr_db": Figure(
            reconstruction, "dB", "at least 28", f"mean over {options.scenes} scenes on photographs it never saw"
        ),
        "base_success_share": Figure(
            found["base_success_share"],
            "share of candidates",
            "0.35 to 0.65",
            f"{spread}; a success has a true reward of {SUCCESS_REWARD} or more",
        ),
        "within_group_std": Figure(
            found["within_group_std"], "standard deviation of the true reward", "at least 0.10", spread
        ),
        "base_background_psnr_db": Figure(
            found["base_background_psnr_db"],
            "dB",
            "at least 26",
            f"{spread}; outside the mask, against the source, mean over candidates, spilled ones among them",
        ),
    }
    judge = json.loads((results.FOLDER / "pocket_judge.json").read_text())
    spearman = judge["figures"]["spearman"]
    figures["judge_spearman"] = Figure(
        spearman["value"],
        spearman["unit"],
        "at least 0.9",
        f"of `{judge['command']}`, {judge['date']}: {spearman['note']}",
    )
    detail = {
        "modes": modes(pipeline.vae, 4 * options.tasks),
        "unrelated_noises": figures_of(independent(pipeline, tasks, options.group, config.rollout.steps)),
    }
    print(results.write("pocket_world", figures, detail).read_text())


if __name__ == "__main__":
    main()
