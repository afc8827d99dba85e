"""The page of the real job, typed block by block in its order: what differs is the value of its variables.

In their places: the pocket editor's folder, a few tasks in MagicBrush's columns and files, a judge merged from tiny
halves, a program that answers like vLLM, a node of this machine's CPUs. See the page for what that leaves open.
"""

import io
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from benchmarks.quote import ROOT
from deploy.configs import load_config
from rc_grpo.evaluation.compbench.layout import write_benchmark
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld
from tests.documented import REAL_JOB
from tests.integration import typed_ray
from tests.integration.ray_nodes import free_port
from tests.integration.reader import checkout, environment, script
from tests.unit.reward.tiny_judges import make_adapter, make_base

UPDATES = 60
SMALL = {
    "extends": "flux_kontext_dev",
    "editor": {"dtype": "float32", "device": "cpu", "resolution": 128, "text_tokens": 24, "compile": False}
    | {"lora": {"rank": 4, "alpha": 8}},
    "rollout": {"workers": 1, "group_size": 3, "steps": 3, "alpha_edit": 0.8, "acd": {"layers": [2, 3]}}
    | {"resources": {"num_gpus": 0, "num_cpus": 0.5}},
    "objective": {"anchors": 2},
    "learner": {"ranks": 1, "threads": 1, "resources": {"num_gpus": 0, "num_cpus": 0.25}},
    "loop": {"updates": UPDATES, "groups_per_update": 2},
    "evaluation": {"tasks": 4, "steps": 3, "every": 20},
    # The stand-in's marks mean nothing, and four tasks may fall by chance.
    "guards": {"falling_evaluations": 0},
}
"""What `CONFIG` is in the place of the packaged configuration: the same, in the sizes of the pocket editor."""
SAID = (
    "usable tasks of data.train",
    "tasks with masks in",
    "overlap (IoU) with the tasks' own masks",
    "of the family flux-kontext",
    "by a stand-in",
    f"{UPDATES} updates: about",
    "Job 'kontext-1' was stopped",
    "kontext is at http://127.0.0.1",
    "kontext-best",
)


@pytest.fixture
def stand_ins(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The values of the page's variables, and all that they name."""
    place = tmp_path / "there"
    for split, count in (("train", 8), ("dev", 6)):
        write_magicbrush(place / "data" / f"{split}-00000-of-00001.parquet", PocketWorld("train", count))
    write_benchmark(place / "bench", PocketWorld("heldout", 6))
    base = make_base(place / "base", "qwen2_5_vl")
    server = place / "python"
    server.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {typed_ray.BIN}/python -m tests.integration.stand_in_judge "$@"\n'
    )
    server.chmod(0o755)
    judge = {"resources": {"num_gpus": 0, "num_cpus": 0.25}, "server": {"python": str(server)}}
    small = SMALL | {"reward": {"judges": {"editscore": judge}}}
    (place / "small.yaml").write_text(yaml.safe_dump(small))
    checkout(place)
    dashboard = free_port()
    # Ray's sockets want a short path.
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))
    yield {
        "VENV": f"{place}/.venv",
        "RUNS": f"{place}/runs",
        "CONFIG": f"{place}/small.yaml",
        "EDITOR_WEIGHTS": f"{ROOT}/rc_grpo/pocket/model",
        "JUDGE_BASE": str(base),
        "JUDGE_ADAPTER": str(make_adapter(place / "adapter", base)),
        "JUDGE": f"{place}/judge",
        "PROMPTS": "null",
        "TRAIN": f"'{place}/data/train-*.parquet'",
        "HELDOUT": f"'{place}/data/dev-*.parquet'",
        "BENCH": f"{place}/bench",
        "CLIP": "none",
        "RAY_PORT": str(free_port()),
        "DASHBOARD": f"http://127.0.0.1:{dashboard}",
        "DASHBOARD_PORT": str(dashboard),
        "RAY_TMPDIR": str(temporary),
    }
    typed_ray.stop(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_the_real_job_goes_from_weights_and_data_to_an_exported_lora(stand_ins: dict[str, str], tmp_path: Path) -> None:
    runs = Path(stand_ins["RUNS"])
    with_values = typed((REAL_JOB,), {name: value for name, value in stand_ins.items() if name != "RAY_TMPDIR"})
    (tmp_path / "typed.sh").write_text(with_values)
    home = tmp_path / "home"
    home.mkdir()
    with (tmp_path / "typed.log").open("w") as log:
        done = subprocess.run(
            ["bash", tmp_path / "typed.sh"],
            stdin=subprocess.DEVNULL,
            cwd=home,  # All paths of the page are absolute.
            env=environment() | {"HOME": str(home), "RAY_TMPDIR": stand_ins["RAY_TMPDIR"]},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=1400,
            check=False,
        )
    whole = (tmp_path / "typed.log").read_text()
    assert done.returncode == 0, whole
    said = re.sub(r"\s+", " ", whole)
    assert [words for words in SAID if words not in said] == [], whole
    lines = [json.loads(line) for line in (runs / "kontext" / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if line["event"] == "update"] == list(range(1, UPDATES + 1))
    assert not json.loads((runs / "kontext" / "summary.json").read_text())["final_version"]["is_identity"]
    assert len(json.loads((runs / "kontext" / "environment.json").read_text())["earlier_starts"]) == 1
    assert {path.name for path in (Path(stand_ins["BENCH"]) / "editing_results").iterdir()} >= {"model", "kontext-best"}
    assert (runs / "kontext-comfyui" / "kontext.safetensors").exists()
    assert (runs / "kontext-diffusers" / "pytorch_lora_weights.safetensors").exists()
    assert all((runs / f"kontext-{layout}" / "README.md").exists() for layout in ("comfyui", "diffusers"))
    assert [path for path in home.iterdir() if not path.name.startswith(".")] == []


def test_its_configuration_is_one_for_both_editors(tmp_path: Path) -> None:
    written = re.search(r"^cat > \$JOB <<END\n.*?^END$", script((REAL_JOB,)), re.DOTALL | re.MULTILINE)
    assert written is not None
    variables = "\n".join(line for line in script((REAL_JOB,)).splitlines() if line.startswith("export "))
    for config in ("flux_kontext_dev", "flux2_klein_4b"):
        set_up = variables.replace("/data/runs", str(tmp_path)).replace("CONFIG=flux_kontext_dev", f"CONFIG={config}")
        subprocess.run(["bash", "-ec", f"{set_up}\n{written[0]}"], check=True, env={"HOME": str(tmp_path)})
        read = load_config(str(tmp_path / "kontext.yaml"))
        assert read.data.train.columns == {}
        assert read.editor.model == "/data/models/FLUX.1-Kontext-dev"
        assert read.data.heldout is not None
        assert str(read.data.heldout.path).endswith("dev-*.parquet")


def typed(pages: tuple[str, ...], values: Mapping[str, str]) -> str:
    """Return the pages as they are typed, with these values where they set a variable for the first time."""
    text = script(pages)
    for name, value in values.items():
        text, count = re.subn(rf"\b{name}=('[^']*'|\S+)", f"{name}={value}", text, count=1)
        assert count, f"{pages} set no {name}"
    # As each is typed, with the second at which that was.
    return text.replace("set -ex", "PS4='+ $SECONDS '\nset -ex", 1)


def write_magicbrush(file: Path, tasks: PocketWorld) -> None:
    """Write tasks as the hub has MagicBrush: its columns, masks as transparent holes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [magicbrush_row(number, task) for number, task in enumerate(tasks)]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = {"source_img": image, "mask_img": image, "target_img": image}
    pq.write_table(pa.table({key: pa.array([row[key] for row in rows], types.get(key)) for key in rows[0]}), file)


def magicbrush_row(number: int, task: EditTask) -> dict[str, object]:
    source, mask = (np.asarray(Image.open(io.BytesIO(data))) for data in (task.source, task.mask))
    hole = io.BytesIO()
    Image.fromarray(np.dstack([source, np.where(mask > 0, 0, 255).astype(np.uint8)])).save(hole, "PNG")
    images = {"source_img": task.source, "mask_img": hole.getvalue(), "target_img": task.target}
    held = {name: {"bytes": data, "path": None} for name, data in images.items()}
    return {"img_id": str(number), "turn_index": 1, "instruction": task.instruction} | held
