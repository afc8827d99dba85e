"""Flow-Factory's own trainer for FLUX.1 Kontext, run for one group: its sampling, its loss, its backward pass.

Its trainer's ``start`` runs as it is, of its own example's configuration with our sizes. From outside come: the
pipeline with random weights and a reward without a model (both by the doors that it has for that), a loader that gives
the encoded prompt again and again in the place of a data set on disk, and stand-ins for packages that only data sets
and records need.
"""

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.gpu.parts import Part
from benchmarks.gpu.peers.outside import stand_in
from benchmarks.gpu.peers.setting import INSTRUCTION, Clock, Setting, part

EXAMPLE = "examples/grpo/lora/flux1_kontext/default.yaml"
INSIDE = "benchmarks.gpu.peers.inside_flow_factory"


def run(setting: Setting, folder: Path) -> Part:
    """Measure it.

    Args:
        setting: what to measure.
        folder: its files.
    """
    sys.path.insert(0, str(folder / "src"))
    missing = [
        stand_in("datasets", Dataset=object, load_dataset=None, load_from_disk=None),
        stand_in("datasets.utils.logging", disable_progress_bar=None),
        stand_in("imageio"),
        stand_in("imageio.v3"),
    ]
    from flow_factory.hparams import Arguments
    from flow_factory.trainers import abc, load_trainer

    from benchmarks.gpu.peers import inside_flow_factory

    inside_flow_factory.SETTING = setting
    abc.get_dataloader = functools.partial(_loader, setting)
    with tempfile.TemporaryDirectory() as temporary:
        configuration = yaml.safe_load((folder / EXAMPLE).read_text(encoding="utf-8"))
        trainer = load_trainer(Arguments.from_dict(_changed(configuration, setting, temporary)))
        clock = Clock(setting.device)
        _watch(trainer, clock)
        trainer.start()
    weights = trainer.adapter.get_trainable_parameters()
    return part(
        clock,
        setting.batch,
        setting.batch,
        {
            "launch": setting.launch,
            "cudnn_attention": setting.cudnn,
            "stand_ins": missing,
            "setting": setting.said,
            "called_through": type(trainer.adapter.transformer).__name__,
            "lora": f"{sum(weight.numel() for weight in weights)} parameters in {weights[0].dtype}",
        },
    )


def _watch(trainer: Any, clock: Clock) -> None:
    """Put our clock around what its trainer calls."""
    adapter, accelerator = trainer.adapter, trainer.accelerator
    forward, backward = adapter.forward, accelerator.backward

    @functools.wraps(forward)
    def begun(*given: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():
            clock.start("step")
        return forward(*given, **named)

    def ended(loss: Any, **named: Any) -> None:
        backward(loss, **named)
        clock.stop("step")

    adapter.forward, accelerator.backward = begun, ended
    adapter.inference = clock.timed("rollout", adapter.inference)
    adapter.pipeline.vae.decode = clock.inside("decode", adapter.pipeline.vae.decode)


def _changed(configuration: dict[str, Any], setting: Setting, folder: str) -> dict[str, Any]:
    """Return its example's configuration with our sizes."""
    device, editor = setting.device.type, setting.editor
    changes: dict[str, dict[str, Any]] = {
        "data": {"dataset_dir": folder, "cache_dir": folder},
        "model": {
            "model_type": f"{INSIDE}.Adapter",
            "model_name_or_path": editor.model,
            "target_modules": list(editor.lora.targets),
        },
        "log": {"logging_backend": "none", "save_dir": folder, "save_freq": 0},
        "train": {
            "resolution": setting.side,
            "condition_image_size": setting.side,
            "num_inference_steps": setting.steps,
            "guidance_scale": editor.guidance,
            "per_device_batch_size": setting.batch,
            "group_size": setting.group,
            "unique_sample_num_per_epoch": 1,
            "gradient_step_per_epoch": 1,
            "max_epochs": setting.epochs,
            "ref_param_device": device,
            "ema_device": device,
        },
        "scheduler": {"sde_steps": list(range(setting.steps - 1)), "num_sde_steps": setting.trained},
        "eval": {"eval_freq": 0},
        "rewards": {"name": "varied", "reward_model": f"{INSIDE}.Varied", "device": device},
    }
    if setting.small:
        # A CPU's autocast takes no float16, in which it keeps latents.
        changes["train"]["latent_storage_dtype"] = "bf16"
    for name, changed in changes.items():
        configuration[name] |= changed
    return configuration | {"config_file": None, "num_processes": 1}


def _loader(setting: Setting, config: Any, accelerator: Any, preprocess_func: Any) -> tuple[Any, None]:
    """Return what its loader gives, of one task encoded by its own adapter."""
    del config, accelerator
    row = preprocess_func(
        prompt=[INSTRUCTION],
        images=[[setting.source()]],
        condition_image_size=setting.side,
        max_sequence_length=setting.editor.text_tokens,
    )
    batch = {name: [value[0]] * setting.batch for name, value in row.items()}
    batch = {name: values if name == "condition_images" else torch.stack(values) for name, values in batch.items()}
    return [batch | {"prompt": [INSTRUCTION] * setting.batch}] * (setting.group // setting.batch), None
