"""Edits that another program made: each image is some sample's or said, each sample has one edit or a reason."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, Sample, write_benchmark
from rc_grpo.evaluation.foreign import SUFFIXES, Foreign
from rc_grpo.pocket.world import PocketWorld

SAMPLES = tuple(
    Sample(f"{family}/{name}", family, name, None, index)
    for index, (family, name) in enumerate(
        [("add", "h/0/1.png"), ("add", "h/0/2.png"), ("remove", "same.jpg"), ("replace", "same.jpg"),
         ("replace", "scene.v1.png"), ("replace", "scene.v2.png")]
    )
)  # fmt: skip
FORMS: dict[str, Callable[[Sample], str]] = {
    "id": lambda sample: sample.task_id.rpartition(".")[0],
    "whole id": lambda sample: sample.task_id,
    "flat": lambda sample: sample.task_id.rpartition(".")[0].replace("/", "_"),
    "layout": lambda sample: f"m_local/{sample.task_id.rpartition('.')[0]}",
}


def write(path: Path, size: tuple[int, int] = (8, 8), colour: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour,) * 3).save(path, format={".webp": "WEBP", ".png": "PNG"}.get(path.suffix, "JPEG"))
    return path


@given(
    st.dictionaries(
        st.sampled_from(SAMPLES), st.tuples(st.sampled_from(sorted(FORMS)), st.sampled_from(SUFFIXES)), min_size=1
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_edit_is_found_by_its_sample_s_id_however_that_is_written(
    tmp_path_factory: pytest.TempPathFactory, there: dict[Sample, tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("edits")
    written = {sample: folder / f"{FORMS[form](sample)}{suffix}" for sample, (form, suffix) in there.items()}
    for path in written.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    foreign = Foreign.open(folder, SAMPLES)
    assert {sample: foreign.path(sample) for sample in SAMPLES if sample in there} == written
    assert not any(foreign.path(sample).exists() for sample in SAMPLES if sample not in there)
    assert foreign.surplus == {}


def test_a_name_alone_counts_where_no_other_sample_has_it(tmp_path: Path) -> None:
    for name in ("h_0_1.png", "same.png", "scene.v2.webp"):
        write(tmp_path / name)
    foreign = Foreign.open(tmp_path, SAMPLES)
    assert foreign.path(SAMPLES[0]) == tmp_path / "h_0_1.png"
    assert foreign.path(SAMPLES[5]) == tmp_path / "scene.v2.webp"
    assert foreign.surplus == {"same.png": "it may be of remove/same.jpg or replace/same.jpg"}


def test_a_whole_id_counts_before_what_else_it_may_stand_for(tmp_path: Path) -> None:
    nested, plain = (
        Sample(f"{family}/{name}", family, name, None, 0)
        for family, name in (("add", "remove/x.png"), ("remove", "x.png"))
    )
    write(tmp_path / "remove" / "x.png")
    foreign = Foreign.open(tmp_path, (nested, plain))
    assert foreign.files == {plain.task_id: (tmp_path / "remove" / "x.png",)}


def test_what_is_no_sample_s_is_surplus_with_its_reason(tmp_path: Path) -> None:
    for name in ("add/h/0/1.png", "add/h/0/9.png", "2.png", "add/h/0/2.bmp"):
        write(tmp_path / name)
    for name in ("notes.txt", ".cache/add/h/0/2.png", "add/.2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert Foreign.open(tmp_path, SAMPLES).surplus == {
        "2.png": "no sample has this name",
        "add/h/0/2.bmp": "it is no png, jpg, jpeg, webp",
        "add/h/0/9.png": "no sample has this name",
    }


def test_a_folder_without_any_edit_is_refused_with_the_names_that_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder of edits at"):
        Foreign.open(tmp_path / "none", SAMPLES)
    with pytest.raises(ValueError, match=r"holds no edit of the benchmark's 6 samples. Name each .*add/h/0/1.png"):
        Foreign.open(tmp_path, SAMPLES)
    write(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"6 samples, but 1 others, such as x.png. Name each"):
        Foreign.open(tmp_path, SAMPLES)


@pytest.fixture
def bench(tmp_path: Path) -> Benchmark:
    write_benchmark(tmp_path / "bench", PocketWorld("heldout", 6))
    return Benchmark.open(tmp_path / "bench")


def bring(bench: Benchmark, folder: Path):
    return Foreign.open(folder, bench.samples).bring_in(bench, Edits(bench.results, "theirs"), lambda: None)


def test_every_sample_has_its_edit_or_a_reason_and_every_image_is_accounted_for(
    bench: Benchmark, tmp_path: Path
) -> None:
    folder, edits = tmp_path / "theirs", Edits(bench.results, "theirs")
    good, small, wide, torn, twice, absent = bench.samples
    paths = {sample: folder / sample.task_id for sample in (good, small, wide, torn, twice)}
    for sample, size in (
        (good, (128, 128)),
        (small, (64, 64)),
        (wide, (128, 64)),
        (torn, (128, 128)),
        (twice, (128, 128)),
    ):
        write(paths[sample], size)
    paths[torn].write_bytes(paths[torn].read_bytes()[:40])
    write(paths[twice].with_suffix(".webp"), (128, 128))
    write(folder / "elsewhere.png")
    brought = bring(bench, folder)
    for sample in (good, small, wide):
        assert edits.path(sample).read_bytes() == paths[sample].read_bytes()
    assert not any(edits.path(sample).exists() for sample in (torn, twice, absent))
    assert brought.missing == [absent.task_id]
    assert brought.reasons.keys() == {torn.task_id, twice.task_id, absent.task_id}
    assert "is not a readable image" in brought.refused[torn.task_id]
    assert "has 2 images of it" in brought.refused[twice.task_id]
    assert "keep one" in brought.refused[twice.task_id]
    assert brought.resized.keys() == {small.task_id, wide.task_id}
    assert brought.resized[wide.task_id] == "64x128, its source 128x128 (height x width)"
    assert brought.stretched == [wide.task_id]
    said = list(brought.in_words())
    counts = {sentence.split(maxsplit=1)[0]: sentence for sentence in said}
    assert [sentence.split()[0] for sentence in said] == ["1", "2", "1", "2", "1"]
    assert counts
    for name in (absent, torn, twice, small, wide):
        assert name.task_id in "\n".join(said)
    assert "elsewhere.png (no sample has this name)" in "\n".join(said)
    assert json.loads(json.dumps(brought.as_json())) == brought.as_json()


def test_many_names_are_cut_off_and_their_count_is_not(bench: Benchmark, tmp_path: Path) -> None:
    write(tmp_path / "theirs" / bench.samples[0].task_id, (128, 128))
    (said,) = bring(bench, tmp_path / "theirs").in_words()
    assert said.startswith("5 samples have no image: ")
    assert said.endswith(", ...")
    assert said.count("/") == 3


def test_what_has_not_changed_is_not_written_again_and_what_is_gone_is_taken_away(
    bench: Benchmark, tmp_path: Path
) -> None:
    folder, edits = tmp_path / "theirs", Edits(bench.results, "theirs")
    kept, changed, gone = bench.samples[:3]
    for sample in (kept, changed, gone):
        write(folder / sample.task_id, (128, 128))
    bring(bench, folder)
    before = {sample: edits.path(sample).stat().st_mtime_ns for sample in (kept, changed, gone)}
    write(folder / changed.task_id, (128, 128), colour=9)
    (folder / gone.task_id).unlink()
    bring(bench, folder)
    assert edits.path(kept).stat().st_mtime_ns == before[kept]
    assert edits.path(changed).stat().st_mtime_ns > before[changed]
    assert np.asarray(Image.open(edits.path(changed)))[0, 0].tolist() == [9, 9, 9]
    assert not edits.path(gone).exists()


def test_a_source_that_is_lost_keeps_no_edit_back(bench: Benchmark, tmp_path: Path) -> None:
    sample = bench.samples[0]
    write(tmp_path / "theirs" / sample.task_id, (64, 64))
    (tmp_path / "bench" / "tasks" / sample.family / "input_image" / str(sample.name)).unlink()
    brought = bring(bench, tmp_path / "theirs")
    assert sample.task_id not in brought.reasons
    assert brought.resized == {}
