"""Which family an editor is of. Families are found by entry points, so that one can come with another package."""

from functools import cache
from importlib.metadata import entry_points

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import Family
from rc_grpo.editor.files import pipeline_class

GROUP = "rc_grpo.editor_families"
"""Entry-point group; each entry's name is that of the family, and it loads to a `Family`."""


class FamilyNotFoundError(ValueError):
    """No installed family is the editor's; the message names those that are."""


@cache
def families() -> dict[str, Family]:
    """Return the installed families by name.

    Raises:
        FamilyNotFoundError: an entry point cannot be imported, or two packages claim one name.
    """
    found: dict[str, Family] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        origin = "" if entry.dist is None else f" of {entry.dist.name}"
        if entry.name in found:
            raise FamilyNotFoundError(f"two packages bring an editor family {entry.name!r}; uninstall one ({origin})")
        try:
            found[entry.name] = entry.load()
        except (ImportError, AttributeError) as error:
            raise FamilyNotFoundError(
                f"the editor family {entry.name!r}{origin} cannot be loaded from {entry.value!r}: {error}"
            ) from error
    return found


def find(editor: EditorConfig) -> Family:
    """Return the family of an editor: the one it names, or the one whose model it is.

    ``auto`` goes by the short name or hub id of the model, then by the pipeline that its ``model_index.json`` names.

    Raises:
        FamilyNotFoundError: there is none, or more than one.
        rc_grpo.editor.files.ModelNotFoundError: the model is not there to be asked.
    """
    installed = families()
    if editor.family != "auto":
        if editor.family not in installed:
            raise FamilyNotFoundError(f"editor.family is {editor.family!r}; {_known(installed)}")
        return installed[editor.family]
    named = [family for family in installed.values() if editor.model in family.models | family.hub_ids.keys()]
    if not named:
        wanted = pipeline_class(editor)
        named = [family for family in installed.values() if family.pipeline == wanted]
        if not named:
            raise FamilyNotFoundError(
                f"editor.model {editor.model!r} is for {wanted}, which is of no family; {_known(installed)}"
            )
    if len(named) > 1:
        names = ", ".join(family.name for family in named)
        raise FamilyNotFoundError(
            f"editor.model {editor.model!r} is of several families: set editor.family to one of {names}"
        )
    return named[0]


def _known(installed: dict[str, Family]) -> str:
    if not installed:
        return "none is installed: install rc-grpo itself (pip install -e .), so that its entry points are found"
    return "installed: " + ", ".join(f"{name} ({family.pipeline})" for name, family in installed.items())
