"""A small benchmark and the edits of models with names that occur nowhere else."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from deploy.study.examples import Material, parse_models
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, write_benchmark
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.pocket.world import PocketWorld

MODELS = ("zebra", "quokka", "okapi")


def write_bench(folder: Path, tasks: int, models: tuple[str, ...] = MODELS) -> list[str]:
    """Write tasks and edits: the true one, one with all colours changed, one of half the size; return --edits."""
    write_benchmark(folder, PocketWorld("heldout", tasks))
    benchmark = Benchmark.open(folder)
    for sample in benchmark.samples:
        originals = benchmark.originals(sample)
        assert originals.target is not None
        true = decode_rgb(originals.target)
        for model, edit in zip(models, edits(true), strict=True):
            save(Edits(benchmark.results, model).path(sample), edit, model)
    return [f"{model}={benchmark.results / model}" for model in models]


def edits(true: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    tinted = np.clip(true * np.array([1.25, 0.9, 0.75]) + 8, 0, 255).astype(np.uint8)
    blurred = np.asarray(Image.fromarray(true).resize((64, 64)))
    return true, tinted, blurred


def save(path: Path, image: Pixels, model: str) -> None:
    """Save an edit whose metadata tell on the model, as some editors' do."""
    told = PngImagePlugin.PngInfo()
    told.add_text("Software", f"made by {model}")
    exif = Image.Exif()
    exif[0x0131] = model
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, pnginfo=told, exif=exif)


def gather(folder: Path, given: list[str]) -> Material:
    benchmark = Benchmark.open(folder)
    return Material.gather(benchmark, benchmark.samples, parse_models(given))


def betrays(data: bytes, names: tuple[str, ...] = MODELS) -> list[str]:
    return [name for name in names if name.encode() in data.lower()]


def headers_of(headers: Mapping[str, str]) -> bytes:
    return "\n".join(f"{name}: {value}" for name, value in headers.items()).encode()
