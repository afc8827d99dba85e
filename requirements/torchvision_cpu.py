"""Make a CUDA build of torchvision importable beside a CPU build of torch: ``python requirements/torchvision_cpu.py``.

PyPI's torchvision is linked to CUDA. Beside a CPU torch its operators do not register, and the package fails at import
for two missing schemas, although image transforms, all that vLLM and transformers want of it, need neither. Declared
beforehand, it imports. Written into site-packages as a .pth hook that costs nothing until torchvision is imported, and
only if the import fails: PyTorch's own CPU index has a build that needs no help. For CPU test machines alone.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
NAME = "rc_grpo_torchvision_cpu"
_libraries: list[object] = []


class Declaring(importlib.abc.MetaPathFinder):
    """Declares torchvision's operators the first time somebody asks for it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Declare for torchvision; find nothing."""
        if fullname == "torchvision":
            import torch

            if torch.version.cuda is None and not _libraries:
                library = torch.library.Library("torchvision", "FRAGMENT")
                _libraries.append(library)
                for schema in SCHEMAS:
                    library.define(schema)
        return None


def main() -> None:
    """Install the hook if torchvision is there and cannot be imported."""
    if importlib.util.find_spec("torchvision") is None:
        return
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False).returncode == 0:
        return
    site = Path(sysconfig.get_path("purelib"))
    (site / f"{NAME}.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (site / f"{NAME}.pth").write_text(f"import sys, {NAME}; sys.meta_path.insert(0, {NAME}.Declaring())\n")
    subprocess.run([sys.executable, "-c", "import torchvision"], check=True)


if __name__ == "__main__":
    main()
