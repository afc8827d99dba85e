"""Writes ``reference/cli.md`` when the site is built, from the command line's own definitions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from deploy.cli import app

PAGE = "reference/cli.md"
PROGRAM = "rc-grpo"
_HEAD = """# Command line

Every command, argument and option of `rc-grpo`. This page is generated from the commands when the site is built.
What you can mend is said in a line on standard error, with exit code 2. A training that was told to stop exits with 143
once its checkpoint is written.
"""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Put the page in the place of the one that a checkout has."""
    if (in_checkout := files.get_file_from_path(PAGE)) is not None:
        files.remove(in_checkout)
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """Return the reference as Markdown."""
    return _HEAD + "\n".join(line for name, command in commands() for line in _described(name, command))


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by its full name."""
    yield from _below(PROGRAM, typer.main.get_command(app))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, child in command.commands.items():
        yield from _below(f"{name} {word}", child)


def _described(name: str, command: Any) -> Iterator[str]:
    yield f"\n## {name}\n"
    yield (command.help or "").replace("``", "`")
    yield "\n| argument or option | default | meaning |\n|---|---|---|"
    # Of the function and not of the parameters: where those keep their types differs among versions of typer.
    types = get_type_hints(command.callback)
    shown = [parameter for parameter in command.params if parameter.name in types]
    for parameter in sorted(shown, key=lambda parameter: parameter.param_type_name):
        cells = (_spelling(parameter, types[parameter.name]), _default(parameter), parameter.help or "")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _spelling(parameter: Any, kind: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    return f"`{names}`" if kind is bool else f"`{names} {parameter.metavar or _value(kind)}`"


def _value(kind: Any) -> str:
    """Return what stands for an option's value, such as ``PATH``."""
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    inner = [_value(part) for part in get_args(kind) if part is not type(None)]
    return inner[0] if inner else {int: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(value, bool):
        return f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`" if parameter.secondary_opts else ""
    return f"`{value}`" if isinstance(value, str | int | Path) else ""
