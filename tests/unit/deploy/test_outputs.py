"""Where a result cannot be written, the command says so before the work: nothing is made to be lost."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from deploy.cli import app
from deploy.configs import load_config
from deploy.evaluating import edit, evaluate, preflight
from deploy.evaluating.evaluate import BenchmarkRequest, run_evaluation
from deploy.looking import inspection, replay
from deploy.outputs import PICTURES, check_apart, check_file, check_folder, check_picture
from deploy.report import page
from deploy.study import serving
from rc_grpo.config import ConfigError


def a_file_in_the_way(folder: Path) -> Path:
    (folder / "file").write_text("x")
    return folder / "file" / "x.png"


def a_folder(folder: Path) -> Path:
    (folder / "x.png").mkdir()
    return folder / "x.png"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "x.png")
    return folder / "x.png"


BAD: dict[str, Callable[[Path], Path]] = {
    "a file where a folder is wanted": a_file_in_the_way,
    "a file two levels up": lambda folder: a_file_in_the_way(folder).parent / "deep" / "x.png",
    "a folder": a_folder,
    "a pipe": a_pipe,
    "a name that is too long": lambda folder: folder / ("x" * 300 + ".png"),
    "a name with a NUL": lambda folder: folder / "x\0.png",
    "where nothing can be": lambda folder: Path("/proc/none/x.png"),
    "a file of the system's": lambda folder: Path("/proc/version.png"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path, bad: Callable[[Path], Path]) -> None:
    path = bad(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for check in (lambda: check_picture(path, "--sheet"), lambda: check_file(path, "--sheet", example="x")):
        with pytest.raises(ConfigError) as refused:
            check()
        assert "--sheet" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_device_is_never_replaced() -> None:
    with pytest.raises(ConfigError, match="no file that could be replaced"):
        check_file(Path("/dev/null"), "--out", example="x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_leave_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        check_file(tmp_path / "x.json", "--out", example="x")


@pytest.mark.parametrize("name", ["sheet", "sheet.xyz", "sheet.gif", "sheet.png.txt", "sheet.h5", ".png"])
def test_a_picture_is_of_a_kind_that_can_be_drawn(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"let its name end in \.png, \.jpg"):
        check_picture(tmp_path / name, "--sheet")


@pytest.mark.parametrize("suffix", [*PICTURES, ".PNG", ".Jpeg"])
def test_every_kind_that_passes_can_be_drawn_and_nothing_is_left_but_the_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "a" / "b" / f"sheet{suffix}"
    check_picture(path, "--sheet")
    assert list(path.parent.iterdir()) == []
    Image.new("RGB", (8, 8)).save(path)
    check_picture(path, "--sheet")
    assert Image.open(path).size == (8, 8)


def test_what_is_there_stays_until_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("kept")
    check_file(tmp_path / "x.json", "--out", example="x")
    check_folder(tmp_path, "output.root")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    check_apart(out=tmp_path / "a", sheet=tmp_path / "b", none=None, no=None)
    with pytest.raises(ConfigError, match="out and sheet are one file"):
        check_apart(out=tmp_path / "a", sheet=tmp_path / "d" / ".." / "a")


def fails(*_: Any, **__: Any) -> Any:
    raise AssertionError("the work began")


@pytest.mark.parametrize("bad", [BAD["a file where a folder is wanted"], BAD["a folder"]])
@pytest.mark.parametrize(
    "command",
    [
        ["edit", "{image}", "x", "--out"],
        ["evaluate", "pocket", "--out"],
        ["evaluate", "pocket", "--sheet"],
        ["evaluate", "pocket", "--compbench", "bench", "--out"],
        ["inspect", "run", "--out"],
        ["report", "run", "--out"],
        ["replay", "run", "1/a", "--sheet"],
        ["study", "results", "study", "--json"],
    ],
    ids=" ".join,
)
def test_every_command_asks_before_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], bad: Callable[[Path], Path]
) -> None:
    for module, work in (
        (edit, "edit_image"),
        (evaluate, "run_assessment"),
        (evaluate, "run_compbench"),
        (inspection, "inspect_run"),
        (page, "read_runs"),
        (replay, "replay"),
    ):
        monkeypatch.setattr(module, work, fails)
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    result = CliRunner().invoke(app, [part.format(image=image) for part in command] + [str(bad(tmp_path))])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_study_asks_for_its_folder_before_it_reads_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "parse_models", fails)
    out = a_file_in_the_way(tmp_path).parent
    result = CliRunner().invoke(app, ["study", "serve", "--tasks", "t", "--edits", "a=b", "--out", str(out)])
    assert (result.exit_code, "--out: nothing can be written" in result.stderr) == (2, True)


def test_an_edit_is_not_written_over_its_own_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "edit_image", fails)
    for image, out in (("a.png", "a.png"), ("a-edited.png", "a.png"), ("a.png", "./a.png")):
        Image.new("RGB", (8, 8)).save(tmp_path / image)
        result = CliRunner().invoke(app, ["edit", str(tmp_path / image), "x", "--out", str(tmp_path / out)])
        assert (result.exit_code, "are one file" in result.stderr) == (2, True)


def test_a_sheet_that_a_benchmark_would_not_draw_is_refused(tmp_path: Path) -> None:
    asked = BenchmarkRequest(tmp_path, None, "none", edit=True, pocket=None)
    with pytest.raises(ConfigError, match="--sheet draws held-out edits"):
        run_evaluation(load_config("pocket"), None, None, tmp_path / "x.png", asked, None)  # type: ignore[arg-type]


def test_a_training_asks_for_its_root_before_a_cluster_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = a_file_in_the_way(tmp_path)
    monkeypatch.setattr("deploy.train.connect", fails)
    monkeypatch.setattr(preflight, "check_judges", lambda config: None)
    result = CliRunner().invoke(app, ["train", "pocket", "--set", f"output.root={root}"])
    assert (result.exit_code, "output.root: nothing can be written" in result.stderr) == (2, True)
