"""A rollout goes by the levels of the model's own scheduler, and a scheduler that solves no ODE is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

from deploy.configs import load_config
from rc_grpo.algorithm.solver import kontext_sigmas
from rc_grpo.config import AcdConfig
from rc_grpo.editor.files import ModelNotFoundError
from rc_grpo.editor.loading import check_model, load_denoiser
from rc_grpo.messages import Conditions
from rc_grpo.pocket import MODEL_PATHS

CONDITIONS = Conditions(height=96, width=64, arrays={}, text_valid=np.ones(4, dtype=np.bool_))
TOKENS = 24
"""Of the pocket editor, whose token is 16 pixels wide."""


def copied(model: str, to: Path, **settings: Any) -> Path:
    """Copy a packaged model with other settings of its scheduler, ``kind`` among them."""
    folder = Path(shutil.copytree(MODEL_PATHS[model], to / model))
    kind = settings.pop("kind", "FlowMatchEulerDiscreteScheduler")
    for path, change in (
        (folder / "scheduler" / "scheduler_config.json", {"_class_name": kind} | settings),
        (folder / "model_index.json", {"scheduler": ["diffusers", kind]}),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


def stock(folder: Path, steps: int, tokens: int) -> torch.Tensor:
    """Return the levels as the stock pipeline asks its scheduler for them."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(tokens, *(scheduler.config[name] for name in names))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return scheduler.sigmas


@pytest.mark.parametrize("steps", [3, 4, 28])
@pytest.mark.parametrize(
    "settings",
    [
        {"use_dynamic_shifting": False, "shift": 5.0},
        {"base_shift": 0.2, "max_shift": 2.0},
        {"time_shift_type": "linear"},
        {"use_karras_sigmas": True},
        {"shift_terminal": 0.1},
    ],
)
def test_levels_are_those_of_the_models_own_scheduler(settings: dict[str, Any], steps: int, tmp_path: Path) -> None:
    folder = copied("pocket", tmp_path, **settings)
    denoiser = load_denoiser(load_config("pocket", (f"editor.model={folder}",)).editor, 0)
    found = denoiser.sigmas(steps, CONDITIONS)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), stock(folder, steps, TOKENS), rtol=0, atol=1e-6)
    assert not torch.allclose(found, kontext_sigmas(steps, TOKENS), atol=1e-3)


def test_the_published_scheduler_has_the_papers_levels_to_the_last_bit(tmp_path: Path) -> None:
    # What it is called otherwise, and the shift that a dynamic one does not use, change none of them.
    folder = copied("pocket", tmp_path, shift=7.0, num_train_timesteps=1000)
    denoiser = load_denoiser(load_config("pocket", (f"editor.model={folder}",)).editor, 0)
    assert torch.equal(denoiser.sigmas(8, CONDITIONS), kontext_sigmas(8, TOKENS))
    torch.testing.assert_close(kontext_sigmas(8, TOKENS).float(), stock(folder, 8, TOKENS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", ["pocket", "pocket-klein"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "FlowMatchHeunDiscreteScheduler"}, "its scheduler is a FlowMatchHeunDiscreteScheduler"),
        ({"kind": "DPMSolverMultistepScheduler"}, "its scheduler is a DPMSolverMultistepScheduler"),
        ({"stochastic_sampling": True}, "its scheduler has stochastic_sampling: it draws noise"),
        ({"invert_sigmas": True}, "its scheduler has invert_sigmas: its levels go from pictures to noise"),
    ],
)
def test_a_scheduler_that_gives_no_ode_its_levels_is_refused_before_anything_starts(
    settings: dict[str, Any], said: str, model: str, tmp_path: Path
) -> None:
    folder = copied(model, tmp_path, **settings)
    editor = load_config(model.replace("-", "_"), (f"editor.model={folder}",)).editor
    with pytest.raises(ModelNotFoundError, match=rf"cannot be loaded: {said}.*save the pipeline with"):
        check_model(editor, AcdConfig(enabled=False))
