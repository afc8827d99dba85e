"""Puts the folders' README.md files and the measured results into the site, and keeps links between them and it right.

On a page, a link is written as it works in the repository. In the site a link to something that the site has goes
there; one to a file that is only in the repository becomes plain text.
"""

import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
_DOCS = "docs/"
_CODE = "code/"
_FOLDERS = ("benchmarks", "deploy", "learner", "rc_grpo", "reward_service", "rollout_workers", "tests")
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what the site shows of the repository outside ``docs/``."""
    pages = [path for folder in _FOLDERS for path in sorted((ROOT / folder).rglob("README.md")) if _shown(path)]
    for path in (*pages, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "benchmarks/results").glob("*.json"))):
        uri = _CODE + path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that are right in the repository into links that are right in the site."""
    uri = page.file.src_uri
    here = uri.removeprefix(_CODE) if uri.startswith(_CODE) else _DOCS + uri
    fences = [match.span() for match in _FENCE.finditer(markdown)]

    def relink(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        fenced = any(start <= match.start() < end for start, end in fences)
        if fenced or not target or re.match(r"[a-z]+:", target):
            return match[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        found = _in_site(wanted, files)
        if found is None:
            if not (ROOT / wanted).exists():
                return match[0]  # mkdocs says what is wrong with it
            return match["text"]
        relative = posixpath.relpath(found, posixpath.dirname(uri) or ".")
        return f"[{match['text']}]({relative}{'#' + anchor if anchor else ''})"

    return _LINK.sub(relink, markdown)


def _in_site(wanted: str, files: Files) -> str | None:
    """Return where the site has a file or folder of the repository, if it has."""
    for path in (wanted, f"{wanted}/README.md"):
        uri = path.removeprefix(_DOCS) if path.startswith(_DOCS) else _CODE + path
        if files.get_file_from_path(uri) is not None:
            return uri
    return None


def _shown(path: Path) -> bool:
    return not {"assets", "schemas", "node_modules"} & set(PurePosixPath(path.relative_to(ROOT)).parts)
