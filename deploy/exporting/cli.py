"""The options of ``rc-grpo export``."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from deploy.errors import plain_errors
from deploy.options import SetOption

console = Console()


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="a run's folder; or a folder of LoRA weights, or ORG/NAME[@REVISION] on the Hub"
        ),
    ],
    to: Annotated[
        Literal["diffusers", "comfyui", "kohya", "peft"], typer.Option(help="who is to load it")
    ] = "diffusers",
    out: Annotated[Path | None, typer.Option(help="the folder to make; NAME-LAYOUT if not given")] = None,
    which: Annotated[
        Literal["best", "last"] | None,
        typer.Option(help="of a run: lora-best, by held-out reward, or lora; the best if there is one"),
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="write the whole transformer with the LoRA in its weights, for diffusers")
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="send the folder to the Hugging Face Hub as well; HF_TOKEN")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: make the repository for all to read")] = False,
    config: Annotated[str | None, typer.Option(help="of a LoRA that lies in no run's folder: whose editor")] = None,
    set_: SetOption = None,
) -> None:
    """Write a run's LoRA as diffusers, ComfyUI, kohya's tools or PEFT load it, with a card, and push it to the Hub."""
    with plain_errors():
        from deploy.exporting.command import Request, export_lora
        from deploy.exporting.source import find_source

        source = find_source(run, which, config, tuple(set_ or ()))
        export_lora(source, Request(to, out, merged, push, public), console)
