"""Editors side by side: measured alike or left out by name, and above the paper's row of the same name."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from rc_grpo.evaluation.compbench.comparison import Comparison
from rc_grpo.evaluation.compbench.paper import ROWS, published

OFFICIAL = {"lc_i": 0.5, "lc_t": None, "psnr": "inf", "ssim": 0.25, "lpips": 0.125}


def measured(results: Path, model: str, **changed: Any) -> None:
    summary = {
        "benchmark": "/bench",
        "model": model,
        "measured_with": {"clip": None, "lpips": True},
        "whole": True,
        "overall": {"expected": 3, "measured": 3, "official": OFFICIAL, "corrected": OFFICIAL},
    }
    (results / model).mkdir(parents=True)
    (results / model / "summary.json").write_text(json.dumps(summary | changed))


def test_each_editor_stands_above_its_published_row(tmp_path: Path) -> None:
    for model in ("zebra", "instruct-pix2pix", "GoT"):
        measured(tmp_path, model)
    comparison = Comparison.read(tmp_path, "zebra")
    assert list(comparison.rows()) == [
        ("GoT", "measured, 3/3", "0.500", "–", "inf", "0.250", "0.125"),
        ("GoT", "published", "0.807", "20.268", "24.675", "0.890", "0.067"),
        ("instruct-pix2pix", "measured, 3/3", "0.500", "–", "inf", "0.250", "0.125"),
        ("InstructPix2Pix", "published", "0.777", "19.445", "21.416", "0.695", "0.173"),
        ("zebra", "measured, 3/3", "0.500", "–", "inf", "0.250", "0.125"),
    ]
    assert list(comparison.remarks()) == []
    assert comparison.markdown().splitlines()[:3] == [
        "| editor | origin | LC-I | LC-T | PSNR | SSIM | LPIPS |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| GoT | measured, 3/3 | 0.500 | – | inf | 0.250 | 0.125 |",
    ]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"benchmark": "/other"}, "measured on /other"),
        ({"measured_with": {"clip": "another", "lpips": True}}, "other models"),
        ({"measured_with": {"clip": None, "lpips": False}}, "other models"),
        ({"overall": {}}, "is damaged .*; measure that model again"),
        ({"whole": "yes"}, "is damaged"),
    ],
)
def test_what_was_not_measured_alike_is_left_out_by_name(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    measured(tmp_path, "mine")
    measured(tmp_path, "theirs", **changed)
    comparison = Comparison.read(tmp_path, "mine")
    assert [editor.name for editor in comparison.editors] == ["mine"]
    (remark,) = comparison.remarks()
    assert remark.startswith("Left out: theirs: ")
    assert re.search(says, remark)


def test_a_part_of_the_benchmark_is_said_to_be_one(tmp_path: Path) -> None:
    measured(tmp_path, "mine")
    measured(tmp_path, "part", whole=False)
    assert list(Comparison.read(tmp_path, "mine").remarks()) == [
        "Not whole, and so not comparable with the others: part."
    ]


def test_every_published_editor_is_found_by_its_own_name_and_others_are_not() -> None:
    for row in (*ROWS["Editors"], *ROWS["Ablation"]):
        assert published(row.method) == row
        assert published(row.method.lower().replace(" ", "_")) == row
    for name, method in (("instruct-pix2pix", "InstructPix2Pix"), ("step1x_edit", "Step1X-Edit"), ("got", "GoT")):
        assert (found := published(name)) is not None
        assert found.method == method
    assert published("RC-GRPO-Editing") == ROWS["Ablation"][-1]
    for name in ("", "-", "tau", "GoT2", "pocket", "GRPO", "Step1X"):
        assert published(name) is None


def test_no_number_is_no_zero(tmp_path: Path) -> None:
    measured(tmp_path, "mine")
    (editor,) = Comparison.read(tmp_path, "mine").editors
    assert math.isnan(editor.values[1])
    assert editor.values[2] == math.inf
