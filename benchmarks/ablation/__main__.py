"""Command line of the ablation."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.ablation import exploration, plots, points, tables
from benchmarks.ablation.statistics import Trained, compare, over_seeds, read
from benchmarks.results import Figure, write

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The method's parts one by one on the pocket editor."
)
console = Console(width=160)
PICTURES = Path(__file__).parents[2] / "docs" / "ablation"
EXPLORATION = "exploration.json"
GLOBAL, RDP, FULL = "GRPO, global", "GRPO + RDP", "RDP + ACD"

Out = Annotated[Path, typer.Option(help="folder for the runs' lines")]
Set = Annotated[list[str] | None, typer.Option("--set", help="an override for every run, such as editor.device=cuda")]


@app.command()
def train(
    out: Out,
    processes: Annotated[int, typer.Option(help="runs side by side")] = 2,
    part: Annotated[list[str] | None, typer.Option(help="methods, tau or claims; else all")] = None,
    seeds: Annotated[int | None, typer.Option(help="fewer than the plan's")] = None,
    set_: Set = None,
) -> None:
    """Train every arm under every seed; what is finished already is left as it is."""
    todo = points.points(part or points.PARTS, seeds, set_ or ())
    for count, point in enumerate(points.train(todo, out, processes), start=1):
        console.print(f"{count} done: {point.arm}, seed {point.seed}")


@app.command()
def explore(
    out: Out, tasks: Annotated[int, typer.Option(help="groups of each setting")] = 60, set_: Set = None
) -> None:
    """Measure exploration and attention of the untrained policy."""
    out.mkdir(parents=True, exist_ok=True)
    found = {
        "alpha_base": exploration.alpha_base_curve(tasks, set_ or ()),
        "attention": exploration.attention_of_good_and_bad(tasks, set_ or ()),
    }
    (out / EXPLORATION).write_text(json.dumps(points.rounded(found)))


@app.command()
def summarise(folder: Path) -> None:
    """Print the tables, draw the pictures, write ``results/ablation.json``."""
    runs = read(folder)
    methods, found = tables.by_arm(runs, "methods"), json.loads((folder / EXPLORATION).read_text())
    paper = {
        "Table 2: methods": tables.rows(methods),
        "Table 3: tau_edit, tau_base": tables.rows({FULL: methods[FULL]} | tables.by_arm(runs, "tau")),
        "one choice at a time": tables.rows({FULL: methods[FULL]} | tables.by_arm(runs, "claims")),
    }
    for title, table in paper.items():
        tables.show(title, table, console)
    plots.distributions(methods, PICTURES / "distributions.png")
    plots.curves(methods, PICTURES / "curves.png")
    plots.alpha_base(found["alpha_base"], PICTURES / "alpha_base.png")
    plots.attention(found["attention"], PICTURES / "attention.png")
    pairs = {
        f"{name}: {one} over {other}": vars(compare(methods[one], methods[other], name))
        for name in ("std", "drift")
        for one, other in ((RDP, GLOBAL), (FULL, GLOBAL))
    }
    detail = {title: tables.as_json(table) for title, table in paper.items()}
    path = write("ablation", _figures(runs, pairs), detail | {"paired": pairs} | found, module="benchmarks.ablation")
    (PICTURES / "tables.md").write_text(
        "\n\n".join(f"### {title}\n\n{tables.markdown(table)}" for title, table in paper.items()) + "\n"
    )
    console.print(f"{path}, {PICTURES}")


def _figures(runs: list[Trained], pairs: dict[str, dict[str, Any]]) -> dict[str, Figure]:
    trained = {arm: tables.rows({arm: own})[arm] for arm, own in tables.by_arm(runs, *points.PARTS).items()}
    best = max(trained, key=lambda arm: trained[arm]["gain of reward"].mean)
    full = trained[FULL]
    share = over_seeds(
        [run for run in runs if run.arm == best],
        lambda run: float((run.last("reward") - run.first("reward")).mean() / (1 - run.first("reward").mean())),
    )
    wilcoxon = "of medians over all training groups; Wilcoxon signed-rank p = {:.2g}"
    std, drift = (pairs[f"{name}: {RDP} over {GLOBAL}"] for name in ("std", "drift"))
    return {
        "rdp_std_over_global": Figure(std["ratio"], "ratio", "below 1", wilcoxon.format(std["p_value"])),
        "rdp_drift_over_global": Figure(drift["ratio"], "ratio", "below 1", wilcoxon.format(drift["p_value"])),
        "best_gain_share": Figure(
            share.mean, "share of the distance to the maximum", "at least 0.10", f"{best}; ± {share.half_width:.3f}"
        ),
        "rdp_acd_score_gain": Figure(
            full["gain of reward"].mean, "reward", "interval above 0", f"± {full['gain of reward'].half_width:.4f}"
        ),
        "rdp_acd_psnr_gain": Figure(
            full["gain of background/psnr"].mean,
            "dB",
            "interval above 0",
            f"± {full['gain of background/psnr'].half_width:.3f}",
        ),
    }


if __name__ == "__main__":
    app()
