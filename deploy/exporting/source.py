"""What is exported: which LoRA, whose run it is, and the editor that it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import Tensor

from deploy.configs import load_config
from deploy.records.best import LORA_BEST
from deploy.records.folder import CONFIG, RunFolder
from rc_grpo.config import ConfigError, RunConfig
from rc_grpo.editor import files, lora
from rc_grpo.editor.export import check_lora
from rc_grpo.editor.weights.lora_hub import on_the_hub

Which = Literal["best", "last"]
LORAS: dict[Which, str] = {"best": LORA_BEST, "last": "lora"}
"""Folders in a run's folder."""


@dataclass(frozen=True, eq=False)
class Source:
    """A LoRA that is there.

    Attributes:
        name: of its run, or its own.
        folder: that holds it, or its name on the Hub.
        config: with the editor that it is for.
        run: whose it is; None where that is not known.
    """

    name: str
    folder: Path
    config: RunConfig
    run: RunFolder | None

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The weights under ``editor.lora``, by canonical name.

        Raises:
            ValueError: see `rc_grpo.editor.export.check_lora`.
        """
        return check_lora(self.config.editor, self.folder)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights, see `rc_grpo.editor.lora.digest`."""
        return lora.digest(lora.rounded(self.weights, files.dtype(self.config.editor)))


def find_source(named: Path, which: Which | None, config: str | None, overrides: Sequence[str]) -> Source:
    """Find the LoRA that a person means.

    Args:
        named: a run's folder; or a folder of LoRA weights, or its name on the Hub.
        which: of a run's two; the best on held-out tasks, if there is one, where none is named.
        config: of a LoRA that lies in no run's folder.
        overrides: keys of the configuration.

    Raises:
        ConfigError: there is nothing of that name, or what it is for is not said, or said twice.
    """
    run = next((folder for folder in (named, named.parent) if named.is_dir() and (folder / CONFIG).is_file()), None)
    if run is not None and config is not None:
        raise ConfigError(f"{run} has its own {CONFIG}: leave --config out; single keys change by --set")
    if run is None and config is None:
        if not named.is_dir() and on_the_hub(named) is None:
            raise ConfigError(f"there is no folder {named}; name a run's, such as runs/NAME, or that of a LoRA")
        raise ConfigError(f"{named} is in no run's folder: say whose editor it is for with --config")
    if run != named and which is not None:
        raise ConfigError(f"--which chooses among the LoRAs of a run, and {named} is one already; leave it out")
    loaded = load_config(str(config if run is None else run / CONFIG), overrides)
    folder = _of_run(named, which) if run == named else named
    files = None if run is None else RunFolder(run)
    return Source(named.name.split("@")[0] if run is None else files.path.name, folder, loaded, files)


def _of_run(run: Path, which: Which | None) -> Path:
    there = {name: run / folder for name, folder in LORAS.items() if (run / folder).is_dir()}
    if not there:
        raise ConfigError(f"{run} has no LoRA yet: a run leaves {LORAS['last']} at its end, and {LORA_BEST} before")
    if which is not None and which not in there:
        raise ConfigError(
            f"{run} has no {LORAS[which]}; it has {LORAS[next(iter(there))]}: --which {next(iter(there))}"
        )
    return there[which or next(iter(there))]
