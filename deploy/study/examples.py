"""What a study shows: the samples of a benchmark of which every model has an edit."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rc_grpo.data.picture import Picture
from rc_grpo.data.text import read_text
from rc_grpo.evaluation.compbench.frames import Originals
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, Sample
from rc_grpo.evaluation.foreign import Foreign, images, some

LONGEST_NAME = 64


@dataclass(frozen=True)
class Example:
    """One trial's material.

    Attributes:
        sample: of the benchmark.
        instruction: what the models were told.
        edits: model -> file of its edit.
        digest: of all that is shown, to tell whether it is still the same.
    """

    sample: Sample
    instruction: str
    edits: Mapping[str, Path]
    digest: str

    @property
    def task_id(self) -> str:
        """The sample's name."""
        return self.sample.task_id


@dataclass(frozen=True)
class Material:
    """All that can be shown, and why the rest cannot.

    Attributes:
        benchmark: has the sources and masks.
        examples: in the order of the benchmark.
        left_out: task and reason.
        remarks: what else there is to say of the models' folders.
    """

    benchmark: Benchmark
    examples: tuple[Example, ...]
    left_out: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...] = ()

    @classmethod
    def gather(cls, benchmark: Benchmark, samples: Iterable[Sample], models: Mapping[str, Edits | Path]) -> "Material":
        """List the samples that are whole and of which all models have an edit.

        Args:
            benchmark: has the sources and masks.
            samples: of the benchmark, those that may be shown.
            models: of `parse_models`.

        Raises:
            ValueError: there is none, or a folder that another program made holds no edit of the benchmark.
        """
        opened = {name: _opened(edits, benchmark) for name, edits in models.items()}
        remarks = tuple(filter(None, (_surplus(name, edits) for name, edits in opened.items())))
        examples: dict[str, Example] = {}
        left_out: list[tuple[str, str]] = []
        for sample in samples:
            try:
                if sample.task_id in examples:
                    raise ValueError("the benchmark has another sample of this name, which is shown")
                examples[sample.task_id] = _example(benchmark, sample, opened)
            except ValueError as error:
                left_out.append((sample.task_id, str(error)))
        if not examples:
            seen = "; ".join(f"{name}: {reason}" for name, reason in left_out[:3]) or "the benchmark is empty"
            folders = ", ".join(str(edits.folder) for edits in opened.values())
            raise ValueError(
                f"there is no sample of {benchmark.path} that {folders} all have an edit of ({seen}). Make them with "
                f"rc-grpo evaluate CONFIG --compbench {benchmark.path}, once for each model"
            )
        return cls(benchmark, tuple(examples.values()), tuple(left_out), remarks)


def parse_models(given: Sequence[str]) -> dict[str, Edits | Path]:
    """Read ``NAME=FOLDER`` pairs.

    Args:
        given: the folders are those that ``rc-grpo evaluate --compbench`` made, ``editing_results/MODEL``, or hold
            another program's edits, named by their samples' ids.

    Returns:
        Name -> where its edits are; the folder itself where another program made them.

    Raises:
        ValueError: a pair is malformed, a folder holds no edits, a name or folder comes twice, or there is but one.
    """
    models: dict[str, Edits | Path] = {}
    for pair in given:
        name, equals, folder = (part.strip() for part in pair.partition("="))
        if not (equals and name and folder and name.isprintable() and len(name) <= LONGEST_NAME):
            raise ValueError(f"--edits {pair!r} is not NAME=FOLDER, such as base=bench/editing_results/pocket")
        if name in models:
            raise ValueError(f"--edits names {name!r} twice; give each model a name of its own")
        edits = _edits(Path(folder), pair)
        if other := next((known for known, there in models.items() if _folder(there) == _folder(edits)), None):
            raise ValueError(f"--edits {name!r} and {other!r} are the same folder {folder}; a study compares different")
        models[name] = edits
    if len(models) < 2:
        raise ValueError(f"a study compares at least 2 models, not {len(models)}; repeat --edits NAME=FOLDER")
    return models


def _edits(folder: Path, pair: str) -> Edits | Path:
    folder = folder.resolve()
    if folder.is_dir() and not (folder / f"{folder.name}_local").exists() and any(images(folder)):
        return folder
    edits = Edits(folder.parent, folder.name)
    if not edits.any():
        raise ValueError(
            f"--edits {pair}: there is no edit in {folder / f'{folder.name}_local'}; name a model's folder in "
            "editing_results, as rc-grpo evaluate CONFIG --compbench FOLDER writes it, or one of images named by their "
            "samples' ids"
        )
    return edits


def _folder(edits: Edits | Path) -> Path:
    return edits if isinstance(edits, Path) else edits.folder


def _opened(edits: Edits | Path, benchmark: Benchmark) -> Edits | Foreign:
    return Foreign.open(edits, benchmark.samples) if isinstance(edits, Path) else edits


def _surplus(name: str, edits: Edits | Foreign) -> str:
    if not (isinstance(edits, Foreign) and edits.surplus):
        return ""
    return f"{len(edits.surplus)} images of {name} are no example's: {some(edits.surplus)}"


def _example(benchmark: Benchmark, sample: Sample, models: Mapping[str, Edits | Foreign]) -> Example:
    paths = {name: edits.path(sample) for name, edits in models.items()}
    if without := [name for name, path in paths.items() if not path.is_file()]:
        raise ValueError(f"no edit by {', '.join(without)}")
    instruction = read_text(benchmark.reader.record(sample.index).values.get("instruction"), "instruction")
    if instruction is None:
        raise ValueError("there is no instruction")
    originals = benchmark.originals(sample)
    digest = hashlib.sha256()
    for role, data in _shown(originals, paths):
        Picture(data, role).check()
        digest.update(hashlib.sha256(data).digest())
    digest.update(instruction.encode())
    return Example(sample, instruction, paths, digest.hexdigest())


def _shown(originals: Originals, paths: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    yield "source", originals.source
    yield "mask", originals.mask
    for name, path in sorted(paths.items()):
        role = f"edit by {name}"
        yield role, Picture(path, role).read()
