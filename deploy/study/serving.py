"""``rc-grpo study serve``: a study's material, its folder and its page, from the command to Ctrl-C."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from deploy.configs import load_config
from deploy.outputs import check_folder
from deploy.records.folder import RunBusyError
from deploy.study.blinding import Blinding
from deploy.study.examples import Material, parse_models
from deploy.study.manifest import LOCK, MANIFEST, VOTES, Manifest
from deploy.study.server import make_app
from deploy.study.votes import BallotBox
from deploy.web.access import is_local
from deploy.web.listening import serve_until_signal
from rc_grpo.evaluation.compbench.layout import Benchmark, Sample

LISTED_ON_SCREEN = 10


def run_study(tasks: str, edits: Sequence[str], out: Path, host: str, port: int, console: Console) -> None:
    """Begin a study in a folder, or go on with the one there, and serve its page until a signal ends it.

    Args:
        tasks: CompBench's folder, the hub's parquet, or a config that names either as ``data.heldout``.
        edits: ``NAME=FOLDER`` of each model.
        out: the study's folder.
        host: address to listen at; one that others can reach asks them for the link's token.
        port: 0 takes any that is free.
        console: where to say the address and what is left out.

    Raises:
        ValueError: there is nothing to compare, the folder's study is another or nothing can be written there, or the
            address is taken.
        RunBusyError: another process serves this study.
    """
    check_folder(out, "--out")
    models = parse_models(edits)
    benchmark, samples = open_tasks(tasks)
    material = Material.gather(benchmark, samples, models)
    try:
        with FileLock(out / LOCK, timeout=0):
            manifest = Manifest.found(out, material)
            _say_what_is_shown(manifest, out, material.remarks, console)
            with BallotBox.opened(out / VOTES) as (box, votes):
                console.print(*filter(None, (f"{len(votes.counted)} votes so far.", votes.word)), highlight=False)
                asyncio.run(_serve(Blinding(manifest, material), box, host, port, console))
    except Timeout as error:
        raise RunBusyError(f"another process serves {out}; end it first, or name another --out") from error


def open_tasks(tasks: str) -> tuple[Benchmark, tuple[Sample, ...]]:
    """Open a benchmark by its path, or by a config whose held-out data it is.

    Raises:
        ValueError: there is none.
    """
    if Path(tasks).is_dir() or Path(tasks).suffix == ".parquet":
        benchmark = Benchmark.open(Path(tasks))
        return benchmark, benchmark.samples
    heldout = load_config(tasks).data.heldout
    if heldout is None or heldout.path is None:
        raise ValueError(
            f"--tasks {tasks}: its data.heldout is no benchmark with files; name the folder that rc-grpo evaluate "
            "CONFIG --compbench FOLDER was given (--pocket N writes one)"
        )
    benchmark = Benchmark.open(heldout.path)
    return benchmark, benchmark.samples[: heldout.limit]


async def _serve(blinding: Blinding, box: BallotBox, host: str, port: int, console: Console) -> None:
    token = None if is_local(host) else blinding.token

    def say(link: str) -> None:
        console.print(f"The study is at {link} until Ctrl-C.", highlight=False, markup=False, soft_wrap=True)

    await serve_until_signal(make_app(blinding, box, token=token), host, port, token, say)


def _say_what_is_shown(manifest: Manifest, out: Path, remarks: Sequence[str], console: Console) -> None:
    console.print(
        f"{out / MANIFEST}: {len(manifest.examples)} examples, edits of {', '.join(manifest.models)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for remark in remarks:
        console.print(remark, highlight=False, markup=False, soft_wrap=True)
    for name, reason in manifest.left_out[:LISTED_ON_SCREEN]:
        console.print(f"left out: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if len(manifest.left_out) > LISTED_ON_SCREEN:
        console.print(f"left out: {len(manifest.left_out) - LISTED_ON_SCREEN} more, all in {MANIFEST}")
