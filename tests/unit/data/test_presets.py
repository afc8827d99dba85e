"""Public data sets are read as they come: a tiny file of each one's shape, by its card's columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.formats.columns import resolve_columns
from rc_grpo.data.load import open_reader

from .conftest import MASK, SOURCE, TARGET

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def held(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": None}


MAGICBRUSH = (
    {"img_id": "242679", "turn_index": 1, "instruction": "Put a cat on the seat", "mask_img": held(MASK)}
    | {"source_img": held(SOURCE), "target_img": held(TARGET)},
    {"source_img": IMAGE, "mask_img": IMAGE, "target_img": IMAGE},
)
OMNIEDIT = (
    {"omni_edit_id": "task_obj_add_1", "task": "addition", "src_img": held(SOURCE), "edited_img": held(TARGET)}
    | {"edited_prompt_list": ["Add a cat to the left", "Add a cat"], "width": 32, "height": 24, "sc_score_1": 9}
    | {"sc_score_2": 9, "sc_reasoning": "", "pq_score": 8, "pq_reasoning": "", "o_score": 8.5},
    {"src_img": IMAGE, "edited_img": IMAGE},
)
IMGEDIT = (
    {"input_images": ["results/1/original.png"], "output_images": ["results/1/result.png"], "prompt": "Remove the cat"},
    {},
)
PICO_BANANA = {
    "open_image_input_url": "https://example.org/1.jpg",
    "text": "Remove the red flag",
    "output_image": "images/positive-edit/1.png",
    "edit_type": "Remove an existing object",
    "summarized_text": "Flag removed",
    "local_input_image": "openimages/1.png",
}


def parquet(folder: Path, rows: list[dict[str, Any]], types: dict[str, Any], name: str = "train-0.parquet") -> Path:
    columns = {key: pa.array([row[key] for row in rows], types.get(key)) for key in rows[0]}
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def images(folder: Path, *names: str) -> None:
    for name, data in zip(names, (SOURCE, TARGET), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def records(path: Path, form: str = "parquet", **options: Any) -> list[Any]:
    source = TaskSource.model_validate({"format": form, "path": path, **options})
    return list(open_reader(source, path, "train"))


def test_magicbrush_is_read_as_it_comes(tmp_path: Path) -> None:
    (task,) = load_tasks(TaskSource(format="parquet", path=parquet(tmp_path, [MAGICBRUSH[0]], MAGICBRUSH[1])))
    assert (task.source, task.target, task.mask) == (SOURCE, TARGET, MASK)
    assert task.instruction == "Put a cat on the seat"
    assert task.task_id == "train-0-000000"  # several turns share an img_id


def test_omniedit_is_read_with_the_first_of_its_instructions_and_our_kinds(tmp_path: Path) -> None:
    rows = [
        OMNIEDIT[0],
        OMNIEDIT[0] | {"omni_edit_id": "b", "task": "swap", "edited_prompt_list": [" ", "Swap it"]},
        OMNIEDIT[0] | {"omni_edit_id": "c", "task": "style", "edited_prompt_list": []},
    ]
    one, two, three = records(parquet(tmp_path, rows, OMNIEDIT[1]))
    assert (one.task_id, one.values["kind"], one.values["instruction"]) == (
        "task_obj_add_1",
        "add",
        "Add a cat to the left",
    )
    assert (two.values["kind"], two.values["instruction"]) == ("replace", "Swap it")
    assert (three.values["kind"], three.values["instruction"]) == ("style", None)
    assert one.values["source"]["bytes"] == SOURCE
    assert one.values["target"]["bytes"] == TARGET


def test_imgedit_is_read_from_the_images_beside_it_and_several_sources_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "results/1/original.png", "results/1/result.png")
    rows = [IMGEDIT[0], IMGEDIT[0] | {"input_images": ["a.png", "b.png"]}, IMGEDIT[0] | {"output_images": []}]
    one, two, three = records(parquet(tmp_path, rows, {}, "remove_part5.parquet"))
    assert (one.values["source"], one.values["target"]) == ("results/1/original.png", "results/1/result.png")
    assert one.fault is None
    assert two.fault == "the source is a list of 2 images, where one is edited (ImgEdit)"
    assert three.fault == "the target is a list of 0 images, where one is edited (ImgEdit)"


def test_pico_banana_is_read_once_its_sources_are_here(tmp_path: Path) -> None:
    path = tmp_path / "sft_with_local_source_image_path.jsonl"
    path.write_text(json.dumps(PICO_BANANA))
    (record,) = records(path, "jsonl")
    assert record.values["source"] == "openimages/1.png"
    assert record.values["target"] == "images/positive-edit/1.png"
    assert (record.values["kind"], record.values["instruction"]) == ("remove", "Remove the red flag")


def test_pico_banana_without_its_sources_is_told_what_brings_them(tmp_path: Path) -> None:
    path = tmp_path / "sft.jsonl"
    path.write_text(json.dumps({key: PICO_BANANA[key] for key in PICO_BANANA if key != "local_input_image"}))
    with pytest.raises(DataError, match=r"map_openimage_url_to_local\.py") as refused:
        records(path, "jsonl")
    assert "edit_type, open_image_input_url, output_image" in str(refused.value)


def test_imgedit_s_files_of_several_turns_are_told_to_be_such(tmp_path: Path) -> None:
    path = parquet(tmp_path, [{"data": [IMGEDIT[0]]}], {})
    with pytest.raises(DataError, match=r"several turns.*a row a turn"):
        records(path)


def test_unknown_columns_are_named_with_the_key_that_maps_them(tmp_path: Path) -> None:
    path = parquet(tmp_path, [{"before": b"1", "after": b"2", "words": "Add"}], {})
    with pytest.raises(DataError) as refused:
        records(path)
    assert "the columns there are: after, before, words" in str(refused.value)
    assert "data.train.columns" in str(refused.value)
    assert "--column" in str(refused.value)


TWO = set(OMNIEDIT[0]) | set(MAGICBRUSH[0])
OWN = {"source", "source_img", *MAGICBRUSH[0]}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (TWO, "the columns of MagicBrush and of OmniEdit"),
        (OWN, "laid out as MagicBrush, whose source is 'source_img', and has a column 'source', too"),
        ({*OMNIEDIT[0], "instruction"}, "laid out as OmniEdit, whose instruction is 'edited_prompt_list'"),
    ],
)
def test_a_layout_that_might_be_read_in_two_ways_is_refused_with_the_columns_there_are(
    columns: set[str], said: str
) -> None:
    with pytest.raises(DataError) as refused:
        resolve_columns({}, columns, "here")
    assert said in str(refused.value)
    assert "data.train.columns" in str(refused.value)
    assert ", ".join(sorted(columns)) in str(refused.value)


def test_the_map_decides_what_is_ambiguous() -> None:
    found = resolve_columns({"source": "source"}, OWN, "here")
    assert found.of["source"] == "source"
    assert found.of["target"] == "target_img"
    mapped = {"task_id": "omni_edit_id", "source": "src_img", "instruction": "task", "target": "edited_img"}
    assert resolve_columns(mapped | {"kind": "task"}, TWO, "here").of["mask"] == "mask_img"


def test_a_column_that_is_mapped_is_read_as_it_is_and_not_as_the_preset_would(tmp_path: Path) -> None:
    path = parquet(tmp_path, [OMNIEDIT[0] | {"words": "Add it"}], OMNIEDIT[1])
    (record,) = records(path, columns={"instruction": "words", "kind": "task"})
    assert (record.values["instruction"], record.values["kind"]) == ("Add it", "addition")
