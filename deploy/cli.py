"""The ``rc-grpo`` command."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from deploy.configs import load_config
from deploy.errors import plain_errors
from rc_grpo.config import dump

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

        run_training(load_config(config, set_))


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

        run_assessment(load_config(config, set_), lora, out, sheet, console)


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

        edited, sheet = edit_image(load_config(config, set_).editor, image, instruction, lora, steps=steps, seed=seed)
        sheet.save(out)
        alone = out.with_stem(out.stem + "-edited")
        edited.save(alone)
        console.print(f"{out} (side by side), {alone} (the edit alone)")


@app.command("config")
def show_config(config: ConfigArgument, set_: SetOption = None) -> None:
    """Print the resolved, validated configuration."""
    with plain_errors():
        typer.echo(dump(load_config(config, set_)), nl=False)


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


@app.command("merge-judge")
def merge_judge_adapter(
    base: Annotated[str, typer.Argument(help="folder or hub id of the vision-language model")],
    adapter: Annotated[str, typer.Argument(help="folder or hub id of the LoRA adapter")],
    out: Annotated[Path, typer.Argument(help="the folder to make, which a server takes as its model")],
    revision: Annotated[str | None, typer.Option(help="of the base on the hub")] = None,
    adapter_revision: Annotated[str | None, typer.Option(help="of the adapter on the hub")] = None,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32"], typer.Option(help="of the merged weights; auto is the base's own")
    ] = "auto",
) -> None:
    """Merge a judge's LoRA adapter into its base, prove that it answers the same, and write a folder to serve."""
    with plain_errors():
        from reward_service.merging import merge_judge

        report = merge_judge(
            base,
            adapter,
            out,
            dtype=dtype,
            revision=revision,
            adapter_revision=adapter_revision,
            on_phase=lambda phase: console.print(f"[dim]{escape(phase)} ...[/dim]", highlight=False),
        )
        parity = report.manifest.parity
        console.print(f"{out}: {'already merged, left alone' if report.already_merged else 'merged'}", soft_wrap=True)
        console.print(
            f"max |delta logit| against base + adapter {parity.error:.3g}, what the adapter moves {parity.effect:.3g}; "
            f"same first choice at {parity.top1_agreement:.1%} of {parity.positions} positions "
            f"(base alone: {parity.top1_agreement_base:.1%})",
            highlight=False,
            soft_wrap=True,
        )


if __name__ == "__main__":
    app()
