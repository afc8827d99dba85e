"""Turns formulas into MathML when the site is built: browsers draw it themselves, with no script or font to load."""

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace what arithmatex marked as a formula."""

    def formula(match: re.Match[str]) -> str:
        block = match["tag"] == "div"
        mathml = convert(html.unescape(match["latex"]).strip(), display="block" if block else "inline")
        return f'<{match["tag"]} class="formula">{mathml}</{match["tag"]}>'

    return _FORMULA.sub(formula, content)
