"""The ``rc-grpo`` command."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from deploy.configs import load_config
from deploy.errors import plain_errors
from deploy.exporting.cli import export
from deploy.masks.cli import masks
from deploy.options import AddressOption, ConfigArgument, LoraOption, RootOption, RunOption, SetOption
from deploy.study.cli import study_app
from rc_grpo.config import dump

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(study_app, name="study")
app.command()(masks)
app.command()(export)
console = Console()


def _say_version(asked: bool) -> None:
    if asked:
        console.print(f"rc-grpo {version('rc-grpo')}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="say the version, and nothing else")
    ] = False,
) -> None:
    """Region-constrained GRPO for flow-based image editors."""


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(help="a YAML file, or the name of a packaged config")] = None,
    resume: Annotated[Path | None, typer.Option(help="folder of a run to go on with, instead of a config")] = None,
    rollout_only: Annotated[
        bool, typer.Option("--rollout-only", help="learn nothing: fill the log with the untrained policy's groups")
    ] = False,
    train_only: Annotated[
        Path | None, typer.Option(help="roll nothing out: learn from the log of the run in this folder")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Run a post-training to its end, or go on with one that was stopped or killed."""
    with plain_errors():
        from deploy.train import start

        start(config, resume, tuple(set_ or ()), rollout_only=rollout_only, train_only=train_only)


@app.command()
def check(
    config: ConfigArgument,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    start_servers: Annotated[
        bool, typer.Option("--start-servers", help="start the judges' own servers here, ask them, and end them")
    ] = False,
    set_: SetOption = None,
) -> None:
    """Say all that is known of a run before it starts: data, judges, LoRA, disk, memory; exit 2 if it would fail."""
    with plain_errors():
        from deploy.checking.check import show_check

        resolved = load_config(config, set_)
        ready = show_check(resolved, console, machine_readable=json, start_servers=start_servers)
    raise typer.Exit(0 if ready else 2)


@app.command()
def doctor(
    config: ConfigArgument,
    steps: Annotated[int, typer.Option(min=2, help="of the pictures that are compared")] = 4,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    out: Annotated[Path | None, typer.Option(help="where the JSON goes as well")] = None,
    start_servers: Annotated[
        bool, typer.Option("--start-servers", help="start the judges' own servers here, ask them, and end them")
    ] = False,
    set_: SetOption = None,
) -> None:
    """Load the editor and ask: the stock pipeline's picture, the LoRA's modules, ratio 1, recorder, float8, judges."""
    with plain_errors():
        from deploy.doctor.examination import show_examination

        resolved = load_config(config, set_)
        well = show_examination(resolved, console, out, steps=steps, start_servers=start_servers, machine_readable=json)
    raise typer.Exit(0 if well else 2)


@app.command()
def status(run: RunOption = None, address: AddressOption = None, root: RootOption = Path("runs")) -> None:
    """Say where a run is, what its pools do, and what it is waiting for."""
    with plain_errors():
        from deploy.watching.asking import show_status

        show_status(run, address, root, console)


@app.command()
def scale(
    pool: Annotated[str, typer.Argument(help="rollout, or reward-NAME for a judge (reward, if there is one)")],
    workers: Annotated[int, typer.Argument(min=1, help="how many it is to have")],
    run: RunOption = None,
    address: AddressOption = None,
    root: RootOption = Path("runs"),
) -> None:
    """Give a pool of a run another size while it trains; workers that leave finish what they have."""
    with plain_errors():
        from deploy.watching.asking import order_scale

        order_scale(pool, workers, run, address, root, console)


@app.command()
def watch(
    run: Annotated[str | None, typer.Argument(help="name or folder; not needed while it is the only one")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free")] = 8101,
    host: Annotated[
        str, typer.Option(help="address to listen at; whoever has the link can stop the run")
    ] = "127.0.0.1",
    address: AddressOption = None,
    root: RootOption = Path("runs"),
) -> None:
    """Serve the live page of a run, going on or over: curves, newest groups, waits, alarm; scale and stop it there."""
    with plain_errors():
        from deploy.watch.serving import run_watch

        run_watch(run, address, root, host, port, console)


@app.command()
def evaluate(
    config: ConfigArgument,
    lora: LoraOption = None,
    out: Annotated[Path | None, typer.Option(help="write the figures as JSON")] = None,
    sheet: Annotated[Path | None, typer.Option(help="draw some of the edits, base and LoRA side by side")] = None,
    compbench: Annotated[
        Path | None, typer.Option(help="edit and measure CompBench instead: its folder, or the hub's parquet")
    ] = None,
    model: Annotated[str | None, typer.Option(help="with --compbench: name of the edits' folder")] = None,
    clip: Annotated[
        str, typer.Option(help="with --compbench: folder or hub id of a CLIP model, or none")
    ] = "openai/clip-vit-large-patch14",
    edit: Annotated[
        bool, typer.Option("--edit/--no-edit", help="with --compbench: --no-edit measures the edits that are there")
    ] = True,
    pocket: Annotated[
        int | None, typer.Option(min=1, help="with --compbench: first write so many held-out pocket tasks there")
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(help="with --compbench: another editor, by folder or hub id of its diffusers pipeline"),
    ] = None,
    edits: Annotated[
        Path | None, typer.Option(help="with --compbench: measure a folder of edits that another program made")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="of --pipeline; its makers' if not given")] = None,
    guidance: Annotated[float | None, typer.Option(help="of --pipeline, likewise")] = None,
    image_guidance: Annotated[float | None, typer.Option(help="of --pipeline, towards the source, likewise")] = None,
    strength: Annotated[
        float | None, typer.Option(help="of --pipeline: share of noise that image-to-image (SDEdit) begins at; 0.75")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Score held-out edits of the base model, and of a LoRA beside it; or make and measure CompBench's edits."""
    with plain_errors():
        from deploy.evaluating.evaluate import BenchmarkRequest, run_evaluation

        options = {"steps": steps, "guidance": guidance, "image_guidance": image_guidance, "strength": strength}
        asked = None
        if compbench is not None:
            asked = BenchmarkRequest(compbench, model, clip, edit, pocket, pipeline, options, edits)
        elif pipeline is not None or edits is not None or any(value is not None for value in options.values()):
            raise ValueError("another editor, or another's edits, are measured on a benchmark: add --compbench FOLDER")
        run_evaluation(load_config(config, set_), lora, out, sheet, asked, console)


@app.command("judge-bench")
def judge_bench(
    config: ConfigArgument,
    pairs: Annotated[
        Path, typer.Argument(help="human preferences in EditReward-Bench's layout: parquet, a folder of it, or .jsonl")
    ],
    judge: Annotated[
        list[str] | None, typer.Option(help="name of a judge in the configuration, may be repeated; all if not given")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many comparisons, the first")] = None,
    margin: Annotated[float, typer.Option(min=0, help="rewards that differ by no more are a tie")] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    out: Annotated[Path | None, typer.Option(help="where the JSON goes as well")] = None,
    set_: SetOption = None,
) -> None:
    """Compare the judges of a configuration with what people preferred: accuracy, ties, seconds an image."""
    with plain_errors():
        from deploy.evaluating.judge_bench import show_bench

        reward = load_config(config, set_).reward
        show_bench(
            reward, pairs, console, judges=judge or (), limit=limit, margin=margin, out=out, machine_readable=json
        )


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
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of the noise; diffusers' own counts 32 bits")] = 0,
    reference: Annotated[list[Path] | None, typer.Option(help="a further source image, may be repeated")] = None,
    set_: SetOption = None,
) -> None:
    """Edit one image with the base model and, if given, a LoRA; side by side."""
    with plain_errors():
        from deploy.evaluating.edit import write_edit

        editor = load_config(config, set_).evaluated
        further = reference or ()
        console.print(write_edit(editor, image, instruction, lora, out, steps=steps, seed=seed, references=further))


@app.command("config")
def show_config(config: ConfigArgument, set_: SetOption = None) -> None:
    """Print the resolved, validated configuration."""
    with plain_errors():
        typer.echo(dump(load_config(config, set_)), nl=False)


@app.command()
def plan(
    config: ConfigArgument,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="of the whole cluster; those of --split if not given, else 8")
    ] = None,
    gpu_type: Annotated[str, typer.Option(help="H200 or H100")] = "H200",
    split: Annotated[
        str | None, typer.Option(metavar="N/N/N", help="GPUs of rollouts, each judge and learner: not the fastest")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="of a GPU for an hour, in any currency")] = None,
    set_: SetOption = None,
) -> None:
    """Split GPUs into pools, and say what an update and the whole run will take; from measured rates, no cluster."""
    with plain_errors():
        from deploy.planning.capacity import make_plan
        from deploy.planning.capacity_report import print_plan

        count = gpus if gpus is not None or split is not None else 8
        print_plan(console, make_plan(load_config(config, set_), count, gpu_type, split=split, price=price), config)


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(metavar="RUN|CONFIG", help="a run's folder; with --tasks a config as well")],
    update: Annotated[int | None, typer.Option(help="which update; the last one logged if not given")] = None,
    groups: Annotated[int, typer.Option(min=1, help="at most so many groups")] = 12,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="draw so many tasks of the data instead: nothing is loaded or rolled out")
    ] = None,
    branch: Annotated[Literal["train", "heldout"], typer.Option("--data", help="with --tasks: which data")] = "train",
    out: Annotated[Path | None, typer.Option(help="where the sheet goes")] = None,
    set_: SetOption = None,
) -> None:
    """Draw groups of a run as a contact sheet: source, mask, candidates by reward; or with --tasks its data."""
    with plain_errors():
        if tasks is not None:
            from deploy.evaluating.preview import write_preview

            said = write_preview(what, tuple(set_ or ()), branch, tasks, out)
        else:
            from deploy.looking.inspection import write_sheet

            if set_:
                raise ValueError("--set is of a configuration, whose data --tasks N draws; a run's groups are logged")
            said = write_sheet(Path(what), update, groups, out)
        console.print(said, highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of runs, such as runs/NAME")],
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
) -> None:
    """Write what runs did as one HTML page that loads nothing: curves, held-out figures, images, an alarm."""
    with plain_errors():
        from deploy.report.page import write_report

        write_report(runs, out)
        console.print(f"{out}: open it in a browser", highlight=False, soft_wrap=True)


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="a run's folder")],
    group: Annotated[
        str, typer.Argument(help="UPDATE/TASK_ID, such as 12/pocket-train-00003; or UPDATE, for its first group")
    ],
    sheet: Annotated[Path | None, typer.Option(help="draw logged and replayed images side by side")] = None,
) -> None:
    """Rebuild a logged group from its seeds and policy, and say what differs from the log; exit 1 if anything does."""
    with plain_errors():
        from deploy.looking.replay import show_replay

        identical = show_replay(run, group, sheet, console)
    raise typer.Exit(0 if identical else 1)


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
        from reward_service.folders.merging import merge_judge

        report = merge_judge(
            base,
            adapter,
            out,
            dtype=dtype,
            revision=revision,
            adapter_revision=adapter_revision,
            on_phase=lambda phase: console.print(f"[dim]{escape(phase)} ...[/dim]", highlight=False),
        )
        console.print(report.in_words, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
