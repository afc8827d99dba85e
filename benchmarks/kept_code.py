"""What a process that is started again waits for compiled code: a learner's first gradient, process after process.

    python -m benchmarks.kept_code              # -> results/kept_code.json

With the pocket editor, compiled on the CPU. First with nothing kept; then with what Inductor keeps, its graphs made of
what PyTorch traces again, forward and back; then with the traces kept, too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from benchmarks.gpu.update import chain
from benchmarks.results import Figure, write
from deploy.configs import load_config
from learner import activations
from rc_grpo.config.learner import Activations
from rc_grpo.editor.loading import load_denoiser

KINDS: tuple[Activations, ...] = ("store", "selective")
ANCHORS, STEPS, REPEATS = 2, 3, 2
TRACED_AGAIN: Mapping[str, str] = {"TORCHINDUCTOR_AUTOGRAD_CACHE": "0"}
KEPT: Mapping[str, str] = {}


def first_gradient(kind: Activations) -> float:
    """Return the seconds of a learner's first sweep and gradient in this process."""
    config = load_config("pocket", ())
    denoiser = load_denoiser(config.editor, config.seed)
    activations.arrange(denoiser.body, kind, compiled=True)
    started = time.perf_counter()
    chain(denoiser, config.editor.resolution, ANCHORS, STEPS, Tensor.backward)()
    return time.perf_counter() - started


def in_a_process(kind: Activations, folder: str, variables: Mapping[str, str]) -> float:
    """Return the same of a process of its own, which keeps its code in a folder."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder} | variables
    command = [sys.executable, "-m", "benchmarks.kept_code", "--here", kind]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return float(json.loads(said.splitlines()[-1]))


def main() -> None:
    """Measure every kind, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--here", choices=KINDS, help=argparse.SUPPRESS)
    if (kind := parser.parse_args().here) is not None:
        print(json.dumps(first_gradient(kind)))
        return
    figures: dict[str, Figure] = {}
    detail: dict[str, Any] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            nothing = in_a_process(kind, folder, KEPT)
            # In pairs: what else the machine does is in both.
            pairs = [[in_a_process(kind, folder, how) for how in (TRACED_AGAIN, KEPT)] for _ in range(REPEATS)]
        again, kept = (sum(times) / REPEATS for times in zip(*pairs, strict=True))
        note = f"activations `{kind}`, a sweep and {STEPS} steps back"
        figures |= {
            f"nothing_kept_seconds_{kind}": Figure(nothing, "seconds", None, note),
            f"traced_again_seconds_{kind}": Figure(again, "seconds", None, note),
            f"kept_seconds_{kind}": Figure(kept, "seconds", None, note),
            f"kept_speedup_{kind}": Figure(again / kept, "x traced again", "above 1", note),
        }
        detail[kind] = {"nothing_kept": nothing, "pairs": pairs}
        print({name: round(figure.value, 2) for name, figure in figures.items()}, flush=True)
    print(write("kept_code", figures, detail))


if __name__ == "__main__":
    main()
