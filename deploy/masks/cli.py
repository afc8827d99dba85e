"""The options of ``rc-grpo masks``."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from deploy.errors import plain_errors

console = Console()


def masks(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="a file (.jsonl, .parquet), several by a pattern ('train-*.parquet'), a folder of parquet or in "
            "CompBench's layout, or pocket",
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the new data set; goes on with the one that is there")],
    by: Annotated[
        Literal["difference", "grounded", "attention", "png"],
        typer.Option(
            help="from source and target; from the instruction by detectors; from an editor's attention; or from files "
            "that --png wrote, and a person painted in"
        ),
    ] = "difference",
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="where a field is, as data.train.columns; repeatable"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first so many rows")] = None,
    min_area: Annotated[float, typer.Option(min=0, max=1, help="refuse masks below this share of the image")] = 0.001,
    max_area: Annotated[float, typer.Option(min=0, max=1, help="refuse masks above it")] = 0.7,
    margin: Annotated[
        float, typer.Option(min=0, max=0.5, help="grow each region by this share of the image's side")
    ] = 1 / 32,
    renew: Annotated[
        bool, typer.Option("--renew", help="make masks of tasks that have one, too, and say how both overlap")
    ] = False,
    png: Annotated[Path | None, typer.Option(help="write each mask to a file in this folder, to be painted in")] = None,
    detector: Annotated[
        str, typer.Option(help="with --by grounded: folder or hub id of a GroundingDINO")
    ] = "IDEA-Research/grounding-dino-base",
    segmenter: Annotated[
        str, typer.Option(help="with --by grounded: folder or hub id of a SAM 2")
    ] = "facebook/sam2.1-hiera-large",
    config: Annotated[str, typer.Option(help="with --by attention: whose editor")] = "pocket",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override a key of --config; repeatable")
    ] = None,
) -> None:
    """Give a data set masks, as a new data set beside it, with a sheet to look at and every refusal by rule."""
    with plain_errors():
        from deploy.masks.command import make_masks
        from deploy.masks.request import Making, Request, columns_of, maker_of
        from rc_grpo.masks.rows import Rows, source_of

        source = source_of(data, dict(columns_of(column or ())), limit)
        request = Request(by, out, min_area, max_area, renew, png)
        request.check(source.path)
        rows = Rows.open(source)
        maker = maker_of(request, Making(margin, detector, segmenter, config, tuple(set_ or ())))
        summary = make_masks(request, rows, maker, console)
        console.print(summary.in_words, highlight=False, markup=False, soft_wrap=True)
