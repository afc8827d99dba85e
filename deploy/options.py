"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[
    str, typer.Argument(help="a YAML file, or the name of a packaged config, such as pocket or flux2_klein_4b")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override a key; repeatable")]
RunOption = Annotated[str | None, typer.Option(help="name or folder of the run; not needed while it is the only one")]
AddressOption = Annotated[str | None, typer.Option(help="of the Ray cluster; else what the run's folder says")]
RootOption = Annotated[Path, typer.Option(help="folder with the runs' folders")]
LoraOption = Annotated[
    Path | None,
    typer.Option(help="folder with LoRA weights, such as runs/NAME/lora, or ORG/NAME[@REVISION] on the Hub"),
]
