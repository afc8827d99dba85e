"""What ``rc-grpo export`` does: everything that can fail is checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.exporting.card import write_card
from deploy.exporting.figures import figures_of
from deploy.exporting.push import check_push, push
from deploy.exporting.source import Source
from deploy.exporting.writing import Layout, check_layout, write_layout, write_merged
from deploy.outputs import check_folder
from rc_grpo.config import ConfigError
from rc_grpo.editor.registry import find


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        to: whose layout.
        out: folder to make; None for one that is named after LoRA and layout.
        merged: the whole transformer instead.
        repository: on the Hub, to send it to.
        public: whoever looks may read it there.
    """

    to: Layout
    out: Path | None = None
    merged: bool = False
    repository: str | None = None
    public: bool = False


def export_lora(source: Source, request: Request, console: Console) -> None:
    """Write a LoRA for whoever is to load it, with its card, and send it to the Hub if that is asked for.

    Raises:
        ConfigError: the request contradicts itself, or cannot be met.
        ValueError: it is no LoRA of the editor, a file of the run is damaged, or the Hub refuses.
    """
    if request.merged and request.to != "diffusers":
        raise ConfigError(f"--merged is a transformer of diffusers'; leave --to {request.to} out")
    if request.public and request.repository is None:
        raise ConfigError("--public says who may read what --push sends; add --push ORG/NAME")
    token = None if request.repository is None else check_push(request.repository)
    check_layout(find(source.config.editor), request.to)
    out = request.out or Path(f"{source.name}-{'merged' if request.merged else request.to}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} is there already, and nothing is overwritten; name a folder to make")
    if source.run is not None:
        source.run.require_readable()
    count, figures = len(source.weights) // 2, figures_of(source)
    check_folder(out, "--out")
    if request.merged:
        arrived = write_merged(source, out)
        weights, done = out, f"the transformer with the LoRA in {count} of its projections, {arrived:.1%} of its change"
    else:
        weights = write_layout(source, request.to, out)
        done = f"the LoRA of {count} projections for {request.to}, in {weights.name}"
    card = write_card(source, figures, request.to, weights, request.repository, merged=request.merged)
    _say(console, f"{out}: {done}; {card.name} says how to load it")
    if request.repository is not None and token is not None:
        message = f"{source.name}: {source.folder.name}, version {source.digest[:12]}"
        commit = push(out, request.repository, token, message, public=request.public)
        _say(console, f"{request.repository}@{commit}: sent; `--lora {request.repository}@{commit[:12]}` reads it back")


def _say(console: Console, said: str) -> None:
    console.print(said, highlight=False, markup=False, soft_wrap=True)
