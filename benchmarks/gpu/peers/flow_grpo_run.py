"""flow_grpo's own script for FLUX.1 Kontext, run for one group: its sampling, its loss, its backward pass.

Its ``main`` runs as it is. From outside come: the pipeline with random weights, a data set of one prompt, its own
configuration with our sizes, one reward of its own that needs no model, a text length of 512 in the place of 128, LoRA
on the projections that all systems here have, and a stand-in for packages that record or parse flags. Its evaluation
and its checkpoints are left out.
"""

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks.gpu.parts import Part
from benchmarks.gpu.peers.outside import stand_in
from benchmarks.gpu.peers.setting import INSTRUCTION, Clock, Setting, part

SCRIPT, CONFIG = "scripts/train_flux_kontext.py", "config/grpo.py"


class Fields(dict[str, Any]):
    """A dictionary whose keys are attributes, too: all that its configuration asks of ``ml_collections``."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class FinishedError(Exception):
    """Ends its endless loop."""


def run(setting: Setting, folder: Path) -> Part:
    """Measure it.

    Args:
        setting: what to measure.
        folder: its files.
    """
    sys.breakpointhook = _not_a_number
    sys.path.insert(0, str(folder))
    flags = SimpleNamespace(DEFINE_config_file=lambda *_given, **_named: None)
    missing = [
        stand_in("wandb", init=_nothing, log=_nothing, Image=_nothing),
        stand_in("ml_collections", ConfigDict=Fields, config_flags=flags),
        stand_in("imp", load_source=_load),
    ]
    if setting.launch == "deepspeed":
        _deepspeed(setting)
    seen: dict[str, Any] = {}
    script, clock = _load("flow_grpo_script", folder / SCRIPT), Clock(setting.device)
    batches = setting.group // setting.batch
    pipeline = setting.pipeline()
    _watch(script, clock, pipeline, setting, seen)
    with tempfile.TemporaryDirectory() as temporary:
        config = _config(_load("flow_grpo_config", folder / CONFIG), setting, batches, Path(temporary))
        script.FLAGS = SimpleNamespace(config=config)
        with contextlib.suppress(FinishedError):
            script.main(None)
    return part(
        clock,
        setting.batch,
        setting.batch,
        {"launch": setting.launch, "cudnn_attention": setting.cudnn, "stand_ins": missing, "setting": setting.said}
        | seen,
    )


def _watch(script: Any, clock: Clock, pipeline: Any, setting: Setting, seen: dict[str, Any]) -> None:
    """Put our model and our clock into the script's module."""
    from accelerate import Accelerator
    from peft import LoraConfig, PeftModel

    passed = 0

    def evaluate(*_given: Any) -> None:
        nonlocal passed
        if passed == setting.epochs:
            raise FinishedError
        passed += 1

    script.eval, script.save_ckpt = evaluate, _nothing
    script.FluxKontextPipeline = SimpleNamespace(from_pretrained=lambda *_given, **_named: pipeline)
    script.LoraConfig = lambda **named: LoraConfig(**named | {"target_modules": list(setting.editor.lora.targets)})
    length, encode = setting.editor.text_tokens, script.compute_text_embeddings
    script.compute_text_embeddings = clock.inside(
        "text", lambda *given, **named: encode(*given, **named | {"max_sequence_length": length})
    )
    script.pipeline_with_logprob = clock.timed("rollout", script.pipeline_with_logprob)
    pipeline.vae.encode = clock.inside("encode", pipeline.vae.encode)
    pipeline.vae.decode = clock.inside("decode", pipeline.vae.decode)
    decode = pipeline.tokenizer.batch_decode
    # It hands the numbers of tokens over as fractions, which its older tokenizer took.
    pipeline.tokenizer.batch_decode = lambda ids, **named: decode(ids.astype(int), **named)
    probability, backward = script.compute_log_prob, Accelerator.backward

    def begun(transformer: Any, scheduled: Any, sample: Any, *given: Any) -> Any:
        if len(sample["latents"]) != setting.batch:
            raise RuntimeError("marks are alike, so that it learns from fewer candidates than a batch has")
        weights = [weight for weight in transformer.parameters() if weight.requires_grad]
        seen["called_through"] = type(transformer).__name__
        seen["lora"] = f"{sum(weight.numel() for weight in weights)} parameters in {weights[0].dtype}"
        clock.start("step")
        return probability(transformer, scheduled, sample, *given)

    def ended(accelerator: Any, loss: Any, **named: Any) -> None:
        backward(accelerator, loss, **named)
        clock.stop("step")

    script.compute_log_prob, Accelerator.backward = begun, ended
    if setting.launch != "deepspeed":
        # It asks for the module inside of DeepSpeed's engine, or of a model on several processes.
        PeftModel.module = property(lambda self: self)


def _config(config: Any, setting: Setting, batches: int, folder: Path) -> Fields:
    """Return its configuration of FLUX.1 Kontext with our sizes."""
    setting.source().save(folder / "source.png")
    line = json.dumps({"prompt": INSTRUCTION, "image": "source.png"}) + "\n"
    for split in ("train", "test"):
        (folder / f"{split}_metadata.jsonl").write_text(line, encoding="utf-8")
    chosen: Fields = config.counting_flux_kontext()
    chosen |= {
        "dataset": str(folder),
        "logdir": str(folder / "logs"),
        "save_dir": str(folder / "saved"),
        "resolution": setting.side,
        "mixed_precision": _precision(setting),
        "reward_fn": {"jpeg_compressibility": 1},
        "eval_freq": 1,
    }
    # On one process a batch must hold whole groups: of one prompt all batches are of the same group.
    chosen.sample |= {
        "num_steps": setting.steps,
        "train_batch_size": setting.batch,
        "num_image_per_prompt": setting.batch,
        "num_batches_per_epoch": batches,
        "guidance_scale": setting.editor.guidance,
    }
    chosen.train |= {
        "batch_size": setting.batch,
        "gradient_accumulation_steps": batches,
        # It takes the whole part of steps times fraction.
        "timestep_fraction": (setting.trained + 0.5) / setting.steps,
    }
    return chosen


def _deepspeed(setting: Setting) -> None:
    """Set what ``accelerate launch`` sets for its own file of ZeRO-2, for one process."""
    from learner.distributed import rendezvous

    host, port = rendezvous()
    os.environ.update(
        ACCELERATE_USE_DEEPSPEED="true",
        ACCELERATE_DEEPSPEED_ZERO_STAGE="2",
        ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE="none",
        ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE="none",
        ACCELERATE_DEEPSPEED_ZERO3_INIT="false",
        ACCELERATE_MIXED_PRECISION=_precision(setting),
        RANK="0",
        LOCAL_RANK="0",
        WORLD_SIZE="1",
        MASTER_ADDR=host,
        MASTER_PORT=str(port),
    )
    if setting.small:
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        # As in our learner: it would be compiled for 40 s, and serves nothing here.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _load(name: str, path: Path | str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _precision(setting: Setting) -> str:
    # On a CPU the plain start is in float32 throughout.
    return "no" if setting.small and setting.launch == "plain" else "bf16"


def _not_a_number(*_given: Any, **_named: Any) -> None:
    # It stops in a debugger there, which would hang.
    raise FloatingPointError("a velocity is not a number")


_nothing: Callable[..., None] = lambda *_given, **_named: None  # noqa: E731
