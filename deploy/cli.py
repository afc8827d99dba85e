"""The ``rc-grpo`` command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.configs import find_config
from deploy.errors import plain_errors
from rc_grpo.config import RunConfig, dump, load

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Region-constrained GRPO for flow-based image editors."
)
console = Console()

ConfigArgument = Annotated[
    str, typer.Argument(help="a YAML file, or the name of a packaged config: pocket, flux_kontext_dev")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override a key; repeatable")]
LoraOption = Annotated[Path | None, typer.Option(help="folder with LoRA weights, such as runs/NAME/lora")]


@app.command()
def train(config: ConfigArgument, set_: SetOption = None) -> None:
    """Run a post-training to its end."""
    with plain_errors():
        from deploy.train import run_training

        run_training(_resolve(config, set_))


@app.command()
def evaluate(
    config: ConfigArgument,
    lora: LoraOption = None,
    out: Annotated[Path | None, typer.Option(help="write the figures as JSON")] = None,
    sheet: Annotated[Path | None, typer.Option(help="draw some of the edits, base and LoRA side by side")] = None,
    set_: SetOption = None,
) -> None:
    """Score held-out edits of the base model, and of a LoRA beside it."""
    with plain_errors():
        from deploy.assessment import run_assessment

        run_assessment(_resolve(config, set_), lora, out, sheet, console)


@app.command()
def edit(
    image: Annotated[Path, typer.Argument(help="the image to edit")],
    instruction: Annotated[str, typer.Argument(help="what to do")],
    lora: LoraOption = None,
    config: Annotated[str, typer.Option(help="whose editor to use")] = "pocket",
    out: Annotated[Path, typer.Option(help="where the side-by-side sheet goes; the edit itself beside it")] = Path(
        "edit.png"
    ),
    steps: Annotated[int, typer.Option(min=1)] = 28,
    seed: int = 0,
    set_: SetOption = None,
) -> None:
    """Edit one image with the base model and, if given, a LoRA; side by side."""
    with plain_errors():
        from deploy.edit import edit_image

        edited, sheet = edit_image(_resolve(config, set_).editor, image, instruction, lora, steps=steps, seed=seed)
        sheet.save(out)
        alone = out.with_stem(out.stem + "-edited")
        edited.save(alone)
        console.print(f"{out} (side by side), {alone} (the edit alone)")


@app.command("config")
def show_config(config: ConfigArgument, set_: SetOption = None) -> None:
    """Print the resolved, validated configuration."""
    with plain_errors():
        typer.echo(dump(_resolve(config, set_)), nl=False)


@app.command()
def inspect(
    run: Annotated[Path, typer.Argument(help="a run's folder")],
    update: Annotated[int | None, typer.Option(help="which update; the last one logged if not given")] = None,
    groups: Annotated[int, typer.Option(min=1, help="at most so many groups")] = 12,
    out: Annotated[Path | None, typer.Option(help="where the sheet goes")] = None,
) -> None:
    """Draw groups of a run as a contact sheet: source, mask, candidates by reward."""
    with plain_errors():
        from deploy.inspection import inspect_run

        sheet, shown = inspect_run(run, update, groups)
        path = out or run / f"inspect-{shown:05d}.png"
        sheet.save(path)
        console.print(f"update {shown} of {run}: {path}")


def _resolve(name: str, overrides: list[str] | None) -> RunConfig:
    return load(find_config(name), tuple(overrides or ()))


if __name__ == "__main__":
    app()
