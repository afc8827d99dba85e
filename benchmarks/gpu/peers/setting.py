"""What all systems are asked for alike, and the clock that all are measured by."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.measuring import MIB
from benchmarks.gpu.parts import Part
from benchmarks.results import Figure
from rc_grpo.config import EditorConfig, LoraSettings
from rc_grpo.config.editor import ATTENTION_TARGETS
from rc_grpo.editor.files import FULL_SIZE, POCKET
from rc_grpo.editor.loading import load_pipeline
from rc_grpo.pocket import MAX_SEQUENCE_LENGTH

INSTRUCTION = "make it red"
CANDIDATE, STEP = "seconds_per_candidate", "seconds_per_trained_step"
ROLLOUT_PEAK, UPDATE_PEAK = "rollout_peak_mib", "update_peak_mib"


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        side: of source and edit, in pixels.
        small: the pocket editor on the CPU in the place of FLUX.1 Kontext's architecture on a GPU: tries the scripts.
        batch: candidates of a rival that go through its model together, in rollouts and in updates; of ours, anchors
            that learn together.
        launch: how a rival is started: ``deepspeed`` (ZeRO-2, one process) or ``plain``.
        cudnn: whether PyTorch may choose cuDNN's attention.
    """

    side: int
    small: bool = False
    batch: int = 1
    launch: str = "plain"
    cudnn: bool = True

    @property
    def group(self) -> int:
        """Candidates of a task."""
        return 4 if self.small else 12

    @property
    def steps(self) -> int:
        """T, steps of a rollout."""
        return 4 if self.small else 8

    @property
    def trained(self) -> int:
        """Steps of them that a rival is asked to train: what one costs does not depend on how many there are."""
        return 2

    @property
    def epochs(self) -> int:
        """How often a rival makes the group and learns from it: the first batch warms up, and some are to follow."""
        return 1 if self.group > 2 * self.batch else 2

    @property
    def laps(self) -> int:
        """How often ours makes a group: the first compiles, and one at 1024 takes half a minute."""
        return 4 if self.side <= 512 else 2

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device("cpu" if self.small else "cuda")

    @property
    def editor(self) -> EditorConfig:
        """The model and its LoRA."""
        return EditorConfig(
            model=POCKET if self.small else FULL_SIZE,
            device=self.device.type,
            dtype="float32" if self.small else "bfloat16",
            resolution=self.side,
            text_tokens=MAX_SEQUENCE_LENGTH if self.small else 512,
            compile=not self.small,
            lora=LoraSettings(rank=64, alpha=128, targets=ATTENTION_TARGETS),
        )

    @property
    def said(self) -> dict[str, Any]:
        """The setting in words and numbers."""
        editor = self.editor
        return {
            "model": editor.model,
            "side": self.side,
            "group": self.group,
            "steps": self.steps,
            "text_tokens": editor.text_tokens,
            "guidance": f"{editor.guidance}, embedded: one pass",
            "dtype": editor.dtype,
            "lora": editor.lora.model_dump(),
        }

    def pipeline(self, **components: Any) -> Any:
        """Return diffusers' pipeline with random weights of full size; a component given as None is left out."""
        return load_pipeline(self.editor, **components)

    def source(self) -> Image.Image:
        """Return a source image: noise, so that no two parts of it are alike."""
        shape = (self.side, self.side, 3)
        return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@dataclass
class Clock:
    """Times what is called, with everything that was asked of the device before and in between finished.

    Attributes:
        device: of the model.
        laps: seconds of every call, by name.
        peaks: the most bytes that tensors held in any of them, by name; 0 on a CPU.
    """

    device: torch.device
    laps: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    _running: dict[str, float] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Begin a lap, and forget what memory was taken before it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._running[name] = time.perf_counter()

    def stop(self, name: str) -> None:
        """End a lap."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.laps.setdefault(name, []).append(time.perf_counter() - self._running.pop(name))
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        self.peaks[name] = max(self.peaks.get(name, 0), peak)

    def inside(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call that is timed as a part of another lap, whose memory goes on being watched."""

        @functools.wraps(call)
        def timed(*given: Any, **named: Any) -> Any:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            value = call(*given, **named)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.laps.setdefault(name, []).append(time.perf_counter() - started)
            return value

        return timed

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call of which each is a lap."""

        @functools.wraps(call)
        def timed(*given: Any, **named: Any) -> Any:
            self.start(name)
            value = call(*given, **named)
            self.stop(name)
            return value

        return timed


def warm(laps: Sequence[float]) -> float:
    """Return the median of laps without the first, which warms up; of one, that one."""
    return statistics.median(laps[1:] or laps)


def part(clock: Clock, candidates: int, trained: int, detail: dict[str, Any]) -> Part:
    """Return what a clock saw as a part of the benchmark.

    Args:
        clock: with laps ``rollout``, ``step`` where there was an update, and ``encode`` where a rollout encodes its
            source, too.
        candidates: of a lap ``rollout``.
        trained: candidates or anchors of a lap ``step``.
        detail: what else is to be said.
    """
    encoding = warm(clock.laps["encode"]) if "encode" in clock.laps else 0.0
    figures = {
        CANDIDATE: Figure((warm(clock.laps["rollout"]) - encoding) / candidates, "s", None, "noise to image"),
        ROLLOUT_PEAK: Figure(clock.peaks["rollout"] / MIB, "MiB"),
    }
    if "step" in clock.laps:
        seconds = warm(clock.laps["step"]) / trained
        figures[STEP] = Figure(seconds, "s", None, "forward and backward of one through one denoising step")
        figures[UPDATE_PEAK] = Figure(clock.peaks["step"] / MIB, "MiB")
    return figures, detail | {"candidates_together": candidates, "trained_together": trained, "laps": clock.laps}
