"""A LoRA on the Hugging Face Hub, named ``ORG/NAME`` or ``ORG/NAME@REVISION`` where a folder could be."""

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError
from huggingface_hub.errors import HTTPError as HubError  # type: ignore[attr-defined]  # httpx's, or httpx2's by version

from rc_grpo.editor.files import reach_the_hub

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


def on_the_hub(source: Path) -> tuple[str, str | None] | None:
    """Return the repository and the revision that a name stands for; None for a folder's path.

    What is there is a path, and so is what lies below a folder that is there: ``runs/mistyped`` asks no Hub.
    """
    named = _ID.fullmatch(source.as_posix())
    if named is None or source.exists() or Path(source.parts[0]).exists():
        return None
    return named["repo"], named["revision"]


def local_folder(source: Path, file: str) -> Path:
    """Return the folder with a LoRA: the one named, or that of the Hub's cache, into which ``file`` alone is fetched.

    Args:
        source: a folder, or what `on_the_hub` knows.
        file: name of the safetensors file.

    Raises:
        ValueError: the Hub has no such repository, revision or file, or cannot be asked.
    """
    if (named := on_the_hub(source)) is None:
        return source
    repo, revision = named
    try:
        reach_the_hub(repo, revision, file)
        return Path(hf_hub_download(repo, file, revision=revision)).parent
    except RemoteEntryNotFoundError as error:
        raise ValueError(
            f"{source} on the Hub has no {file}, the one file that is read of it; push it with `rc-grpo export RUN "
            f"--push {repo}`, or download what it has and convert that"
        ) from error
    except (OSError, HubError, HFValidationError) as error:
        raise ValueError(
            f"no LoRA at {source}: there is no such folder, and as an id on the Hub it cannot be read (is it right? "
            f"is HF_TOKEN set, if it is private?): {error}"
        ) from error
