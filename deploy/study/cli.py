"""``rc-grpo study``: ask people which model's edit they prefer, without telling them whose it is."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.errors import plain_errors

study_app = typer.Typer(no_args_is_help=True, help="Ask people, blind, which model's edits they prefer.")
console = Console()


@study_app.command()
def serve(
    tasks: Annotated[
        str, typer.Option(help="CompBench's folder, the hub's parquet, or a config with either as data.heldout")
    ],
    edits: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FOLDER", help="a model's edits, editing_results/MODEL or images named by task; repeat it"
        ),
    ],
    out: Annotated[Path, typer.Option(help="the study's folder; goes on with the study that is there")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free")] = 8100,
    host: Annotated[
        str, typer.Option(help="address to listen at; where others can reach it, the link holds a token")
    ] = "127.0.0.1",
) -> None:
    """Serve the page that shows each task's edits side by side, in an order and under names that say nothing."""
    with plain_errors():
        from deploy.study.serving import run_study

        run_study(tasks, edits, out, host, port, console)


@study_app.command()
def results(
    folder: Annotated[Path, typer.Argument(help="the study's folder; it may be served meanwhile")],
    json_: Annotated[Path | None, typer.Option("--json", help="also write everything as JSON")] = None,
) -> None:
    """Print how often each model was chosen, with intervals, and every pair of models."""
    with plain_errors():
        from deploy.outputs import check_file
        from deploy.study.report import print_results
        from deploy.study.results import Results
        from rc_grpo.durable import write_whole

        check_file(json_, "--json", example="results.json")
        found = Results.read(folder)
        print_results(found, console)
        if json_ is not None:
            write_whole(json_, json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n")
