"""The images: linted, of the pins that are tested, without root, and with no more in them than they need."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.docker.constraints import IMAGES, OF_THE_CPU, constraints, project, requirements
from tests.unit.manifests.documents import DEPLOY, cluster_spec, read
from tests.unit.manifests.linters import linter

ROOT = DEPLOY.parent
FROZEN = (ROOT / "requirements/cpu.txt").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()


def _file(image: str) -> Path:
    return DEPLOY / f"docker/{image}.Dockerfile"


def _lint(path: Path) -> list[str]:
    done = subprocess.run([linter("hadolint"), "--no-color", str(path)], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()


def _problems(text: str, folder: Path) -> list[str]:
    path = folder / "Dockerfile"
    path.write_text(text)
    return _lint(path) + _ours(text)


def _ours(text: str) -> list[str]:
    """What hadolint does not ask."""
    found = []
    base = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    if base is None or not re.search(r":\d+\.\d+\.\d+-|@sha256:", base[1]):
        found.append("the base is not pinned to a full version or a digest")
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    if not users or users[-1] in ("root", "0"):
        found.append("ends as root")
    if re.search(r"^ADD ", text, re.MULTILINE):
        found.append("ADD")
    installs = re.findall(r"pip install (.*)", text)
    if not all("-c constraints.txt" in line or line.startswith("--no-deps") for line in installs):
        found.append("installs without the constraints")
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_it_is_clean(image: str, tmp_path: Path) -> None:
    assert _problems(_file(image).read_text(), tmp_path) == []


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("3.11.13-slim-bookworm", "latest"),
        ("3.11.13-slim-bookworm", "3-slim"),
        ("FROM ${BASE}", "FROM python"),
        ("USER 1000", "USER root"),
        ("USER 1000\n", ""),
        ("WORKDIR /opt/rc-grpo", "WORKDIR rc-grpo"),
        ("COPY learner learner", "ADD learner learner"),
        ("-c constraints.txt -r", "-r"),
        ("    && rm -rf /var/lib/apt/lists/*\n", "    && true\n"),
        ('CMD ["python", ', "CMD python "),
        ("COPY deploy deploy", "COPPY deploy deploy"),
    ],
)
def test_a_deliberate_error_is_caught(image: str, good: str, bad: str, tmp_path: Path) -> None:
    text = _file(image).read_text()
    assert good in text
    assert _problems(text.replace(good, bad, 1), tmp_path)


@pytest.mark.parametrize("image", IMAGES)
def test_what_it_copies_is_there_and_let_through(image: str) -> None:
    text = _file(image).read_text()
    copied = [name for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    ignore = _file(image).with_name(f"{image}.Dockerfile.dockerignore")
    let_through = [line[1:] for line in ignore.read_text().splitlines() if line.startswith("!")]
    for name in copied:
        assert (ROOT / name).exists()
        assert any(name == path or name.startswith(f"{path}/") for path in let_through)


def test_both_images_have_the_same_base_and_the_same_ray() -> None:
    bases = {re.findall(r"^ARG BASE=.*$", _file(image).read_text(), re.MULTILINE)[0] for image in IMAGES}
    rays = {next(line for line in requirements(image, PROJECT) if project(line) == "ray") for image in IMAGES}
    assert len(bases) == 1
    assert rays == {f"ray[default]=={cluster_spec('overlays/small/job')['rayVersion']}"}


def test_the_python_is_the_one_that_is_tested() -> None:
    assert "python:3.11." in _file("trainer").read_text()


def test_only_the_reward_image_has_vllm() -> None:
    having = [image for image in IMAGES if "vllm" in {project(line) for line in requirements(image, PROJECT)}]
    assert having == ["reward"]


@pytest.mark.parametrize("image", IMAGES)
def test_it_installs_torch_of_the_version_that_is_tested(image: str) -> None:
    assert "torch==2.13.0" in requirements(image, PROJECT)
    assert "torch==2.13.0+cpu" in FROZEN


def test_constraints_are_the_freeze_less_what_only_the_cpu_has() -> None:
    frozen = {project(line) for line in FROZEN.splitlines() if line and not line.startswith("#")}
    assert frozen >= OF_THE_CPU
    assert {project(line) for line in constraints(FROZEN)} == frozen - OF_THE_CPU
    assert not any("+cpu" in line for line in constraints(FROZEN))


def test_no_name_is_taken_for_another_in_another_spelling() -> None:
    assert project("Apache_TVM.ffi==0.1; python_version > '3'") == "apache-tvm-ffi"


def test_an_unknown_image_is_refused() -> None:
    with pytest.raises(ValueError, match="there are: trainer, reward"):
        requirements("judge", PROJECT)


def test_manifests_name_the_images_that_are_built_here() -> None:
    spec = yaml.safe_dump([cluster_spec("overlays/large/job"), read(DEPLOY / "vm/cluster.yaml")])
    version = re.search(r'^version = "(.*)"$', PROJECT, re.MULTILINE)
    assert version is not None
    assert set(re.findall(r"rc-grpo/\w+:[\w.]+", spec)) == {f"rc-grpo/{image}:{version[1]}" for image in IMAGES}
