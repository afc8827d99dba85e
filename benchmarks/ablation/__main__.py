"""Command line of the ablation."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.ablation import exploration, long, long_summary, plots, points, tables
from benchmarks.ablation.running import rounded, side_by_side
from benchmarks.ablation.statistics import Array, Estimate, Trained, compare, of_all_groups, over_seeds, paired, read
from benchmarks.results import Figure, write
from deploy.configs import load_config

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The method's parts one by one on the pocket editor."
)
console = Console(width=160)
PICTURES = Path(__file__).parents[2] / "docs" / "ablation"
EXPLORATION = "exploration.json"
GLOBAL, RDP, FULL = "GRPO, global", "GRPO + RDP", "RDP + ACD"
DURING_TRAINING = ("drift", "std")

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
    for count, point in enumerate(side_by_side(todo, out, processes), start=1):
        console.print(f"{count} done: {point.arm}, seed {point.seed}")


@app.command()
def explore(
    out: Out, tasks: Annotated[int, typer.Option(help="groups of each setting")] = 100, set_: Set = None
) -> None:
    """Measure exploration and attention of the untrained policy."""
    out.mkdir(parents=True, exist_ok=True)
    found = {
        "alpha_base": exploration.alpha_base_curve(tasks, set_ or ()),
        "attention": exploration.attention_of_good_and_bad(tasks, set_ or ()),
    }
    (out / EXPLORATION).write_text(json.dumps(rounded(found)))


@app.command()
def damage(out: Out, set_: Set = None) -> None:
    """Make the base model that damages backgrounds, for the long runs."""
    lines = long.damage(out, set_ or ())
    for line in lines:
        if "heldout" in line:
            means = {name: float(np.mean(of)) for name, of in line["heldout"].items()}
            console.print({name: round(means[name], 3) for name in ("reward", "success", "background/psnr")})


@app.command("train-long")
def train_long(
    out: Out,
    processes: Annotated[int, typer.Option(help="runs side by side")] = 16,
    world: Annotated[list[str] | None, typer.Option(help="plain, damages, region or noisy; else all")] = None,
    set_: Set = None,
) -> None:
    """Train the long runs; what is finished already is left as it is."""
    todo = long.long_runs(out, world or (), set_ or ())
    for count, one in enumerate(side_by_side(todo, out, processes), start=1):
        console.print(f"{count} done: {one.arm} in the world {one.world}, seed {one.seed}")


@app.command("summarise-long")
def summarise_long(folder: Path) -> None:
    """Print the long runs' comparisons, draw their pictures, write their tables and ``results/ablation_gpu.json``."""
    worlds = long_summary.by_world(read(folder))
    compared = long_summary.comparisons(worlds)
    long_summary.draw(worlds, PICTURES)
    pages = long_summary.tables(worlds, compared)
    (PICTURES / "long_tables.md").write_text(pages)
    path = write(
        "ablation_gpu",
        long_summary.figures(worlds, compared),
        long_summary.detail(worlds, compared),
        module="benchmarks.ablation",
    )
    console.print(pages, f"{path}, {PICTURES}", sep="\n")


@app.command()
def summarise(folder: Path) -> None:
    """Print the tables, draw the pictures, write ``results/ablation.json``."""
    runs = read(folder)
    arms, methods = tables.by_arm(runs, *points.PARTS), tables.by_arm(runs, "methods")
    best = max(arms, key=lambda arm: np.mean([run.last("reward").mean() for run in arms[arm]]))
    found = json.loads((folder / EXPLORATION).read_text())
    paper = {
        "Methods": tables.rows(methods),
        "tau_edit, tau_base": tables.rows({FULL: methods[FULL]} | tables.by_arm(runs, "tau")),
        "One choice at a time": tables.rows({FULL: methods[FULL]} | tables.by_arm(runs, "claims")),
    }
    differences = tables.against(methods[FULL], arms)
    shown = {title: tables.written(table, differences, FULL) for title, table in paper.items()}
    for title, table in shown.items():
        tables.show(title, *table, console)
    curve = {alpha: {name: np.array(of) for name, of in own.items()} for alpha, own in found["alpha_base"].items()}
    untrained = {RDP: curve[f"{load_config('pocket').rollout.alpha_base:g}"], GLOBAL: curve["global"]}
    _draw(methods, methods | {best: arms[best]}, untrained, curve, found["attention"])
    same_policy = {name: vars(paired(untrained[RDP][name], untrained[GLOBAL][name])) for name in plots.WORDS}
    during = {
        name: {
            key: vars(compare(methods[arm], methods[GLOBAL], name)) for key, arm in (("rdp", RDP), ("rdp_acd", FULL))
        }
        for name in DURING_TRAINING
    }
    detail = {title: tables.as_json(table) for title, table in paper.items()}
    path = write(
        "ablation",
        _figures(best, arms, paper["Methods"][FULL], same_policy),
        detail
        | {"against_rdp_acd": {arm: vars(estimate) for arm, estimate in differences.items()}}
        | {"rdp_over_global": same_policy, "over_global_in_training": during}
        | found,
        module="benchmarks.ablation",
    )
    (PICTURES / "tables.md").write_text(
        "# Tables\n\n"
        + "\n\n".join(f"## {title}\n\n{tables.markdown(*table)}" for title, table in shown.items())
        + "\n"
    )
    console.print(f"{path}, {PICTURES}")


def _draw(
    methods: plots.Arms,
    with_best: plots.Arms,
    untrained: dict[str, dict[str, Array]],
    curve: dict[str, dict[str, Array]],
    attention: dict[str, Any],
) -> None:
    plots.distributions(
        {name: {arm: own[name] for arm, own in untrained.items()} for name in plots.WORDS},
        PICTURES / "exploration.png",
    )
    plots.distributions(
        {name: {arm: of_all_groups(own, name) for arm, own in methods.items()} for name in DURING_TRAINING},
        PICTURES / "training_groups.png",
    )
    plots.curves(with_best, PICTURES / "curves.png")
    plots.alpha_base(curve, PICTURES / "alpha_base.png")
    plots.attention(attention, PICTURES / "attention.png")


def _figures(
    best: str, arms: dict[str, list[Trained]], full: dict[str, Estimate], same_policy: dict[str, dict[str, Any]]
) -> dict[str, Figure]:
    share = over_seeds(
        arms[best],
        lambda run: float((run.last("reward") - run.first("reward")).mean() / (1 - run.first("reward").mean())),
    )
    wilcoxon = "medians over {pairs} held-out groups of the untrained policy; Wilcoxon signed-rank p = {p_value:.2g}"
    std, drift, spread = (
        Figure(same_policy[name]["ratio"], "ratio", "below 1", wilcoxon.format(**same_policy[name]))
        for name in ("std", "drift", "spread")
    )
    return {
        "rdp_std_over_global": std,
        "rdp_drift_over_global": drift,
        "rdp_spread_over_global": spread,
        "best_gain_share": Figure(
            share.mean,
            "share of the distance to the maximum",
            "at least 0.10",
            f"{best}, the highest of {len(arms)} arms; ± {share.half_width:.3f}",
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
