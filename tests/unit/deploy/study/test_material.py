import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.study.blinding import REGION, SOURCE, Blinding, edit_of
from deploy.study.examples import parse_models
from deploy.study.manifest import MANIFEST, Manifest
from deploy.study.pictures import OUTSIDE, Pictures
from deploy.study.serving import open_tasks
from rc_grpo.evaluation.compbench.layout import Benchmark
from rc_grpo.images import decode_levels, decode_rgb
from tests.unit.deploy.study.benches import MODELS, betrays, gather, write_bench


def test_only_examples_that_all_models_have_are_shown_and_the_others_listed(tmp_path: Path) -> None:
    given = write_bench(tmp_path, 5)
    whole = gather(tmp_path, given)
    lost, broken, sourceless = whole.examples[:3]
    lost.edits["okapi"].unlink()
    broken.edits["zebra"].write_bytes(broken.edits["zebra"].read_bytes()[:200])
    (tmp_path / "tasks" / sourceless.sample.family / "input_image" / str(sourceless.sample.name)).unlink()
    rest = gather(tmp_path, given)
    assert [example.task_id for example in rest.examples] == [example.task_id for example in whole.examples[3:]]
    reasons = dict(rest.left_out)
    assert reasons[lost.task_id] == "no edit by okapi"
    assert "the edit by zebra is not a readable image" in reasons[broken.task_id]
    assert "the source: cannot read" in reasons[sourceless.task_id]


def test_what_cannot_be_compared_is_refused_with_the_way_out(bench: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, given = bench
    for wrong, says in (
        (given[:1], "at least 2 models, not 1"),
        ([given[0], given[0]], "names 'zebra' twice"),
        ([given[0], given[0].replace("zebra=", "other=")], "are the same folder"),
        (["zebra"], "is not NAME=FOLDER"),
        (["=x"], "is not NAME=FOLDER"),
        ([given[0], f"none={tmp_path / 'none'}"], "rc-grpo evaluate CONFIG --compbench FOLDER writes it"),
    ):
        with pytest.raises(ValueError, match=says):
            parse_models(wrong)
    strange = tmp_path / "editing_results" / "strange"
    (strange / "strange_local" / "add").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(strange / "strange_local" / "add" / "elsewhere.png")
    with pytest.raises(ValueError, match=r"all have an edit of .*no edit by strange.*once for each model"):
        gather(folder, [given[0], f"strange={strange}"])


def test_a_folder_of_images_that_another_program_made_takes_part_and_what_is_odd_is_said(tmp_path: Path) -> None:
    given = write_bench(tmp_path, 4)
    first, second, third, _ = Benchmark.open(tmp_path).samples
    folder = tmp_path / "got"
    (folder / "add").mkdir(parents=True)
    for sample in (first, second, third):
        Image.new("RGB", (32, 16), (9, 9, 9)).save(
            folder / f"{sample.task_id.replace('/', '_').removesuffix('.png')}.jpg"
        )
    Image.new("RGB", (8, 8)).save(folder / f"{third.task_id.replace('/', '_').removesuffix('.png')}.webp")
    Image.new("RGB", (8, 8)).save(folder / "add" / "elsewhere.png")
    found = gather(tmp_path, [*given, f"GoT={folder}"])
    assert [example.sample for example in found.examples] == [first, second]
    reasons = dict(found.left_out)
    assert "keep one" in reasons[third.task_id]
    assert sum("no edit by GoT" in reason for reason in reasons.values()) == 1
    assert found.remarks == ("1 images of GoT are no example's: add/elsewhere.png (no sample has this name)",)
    manifest = Manifest.of(found, secret="of a test")
    data = Pictures(Blinding(manifest, found)).png(Blinding(manifest, found).picture(found.examples[0], edit_of("GoT")))
    assert decode_rgb(data).shape == (128, 128, 3)


def test_tasks_are_a_benchmark_s_folder_or_a_config_that_names_one(
    bench: tuple[Path, list[str]], tmp_path: Path
) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(f"extends: pocket\ndata: {{heldout: {{format: compbench, path: {bench[0]}, limit: 2}}}}\n")
    everything = open_tasks(str(bench[0]))[1]
    assert open_tasks(str(config))[1] == everything[:2]
    with pytest.raises(ValueError, match="no benchmark with files"):
        open_tasks("pocket")
    with pytest.raises(ValueError, match="no config file 'nowhere'"):
        open_tasks("nowhere")


def test_all_pictures_of_a_trial_have_one_size_and_none_has_metadata(blinding: Blinding) -> None:
    pictures, example = Pictures(blinding), blinding.material.examples[0]
    assert betrays(example.edits["zebra"].read_bytes()) == ["zebra"]
    for part in (SOURCE, REGION, *map(edit_of, MODELS)):
        data = pictures.png(blinding.picture(example, part))
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert (image.size, image.mode, image.info) == ((128, 128), "RGB", {})
        assert chunks(data) <= {b"IHDR", b"IDAT", b"IEND"}


def test_pictures_are_the_ones_they_stand_for(blinding: Blinding) -> None:
    pictures, example = Pictures(blinding), blinding.material.examples[1]
    originals = blinding.material.benchmark.originals(example.sample)
    source, inside = decode_rgb(originals.source), decode_levels(originals.mask) > 0

    def drawn(part: str) -> np.ndarray:
        return decode_rgb(pictures.png(blinding.picture(example, part)))

    assert np.array_equal(drawn(SOURCE), source)
    assert np.array_equal(drawn(edit_of("zebra")), decode_rgb(example.edits["zebra"].read_bytes()))
    region = drawn(REGION)
    assert np.array_equal(region[inside], source[inside])
    assert np.abs(region[~inside] - source[~inside] * OUTSIDE).max() <= 1


def test_the_secret_of_a_study_is_its_owners(bench: tuple[Path, list[str]], tmp_path: Path) -> None:
    Manifest.found(tmp_path, gather(*bench))
    assert (tmp_path / "study.json").stat().st_mode & 0o077 == 0


def test_a_study_s_folder_takes_no_votes_about_anything_else(tmp_path: Path) -> None:
    given = write_bench(tmp_path / "bench", 4)
    material, out = gather(tmp_path / "bench", given), tmp_path / "study"
    first = Manifest.found(out, material)
    assert Manifest.found(out, material) == first == Manifest.read(out)
    with pytest.raises(ValueError, match="models okapi, quokka, zebra there, quokka, zebra now"):
        Manifest.found(out, gather(tmp_path / "bench", given[:2]))
    edit = material.examples[0].edits["okapi"]
    before = edit.read_bytes()
    edit.write_bytes(material.examples[0].edits["zebra"].read_bytes())
    with pytest.raises(ValueError, match=f"1 examples have changed, such as {material.examples[0].task_id}"):
        Manifest.found(out, gather(tmp_path / "bench", given))
    edit.unlink()
    with pytest.raises(ValueError, match=r"1 of its examples are gone.*another --out"):
        Manifest.found(out, gather(tmp_path / "bench", given))
    edit.write_bytes(before)
    assert Manifest.found(out, gather(tmp_path / "bench", given)) == first
    (out / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="is not what rc-grpo study serve wrote"):
        Manifest.read(out)


def chunks(png: bytes) -> set[bytes]:
    found, at = set(), 8
    while at < len(png):
        found.add(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return found
