"""How the committed assets were made: ``python -m rc_grpo.pocket.collect --debian FOLDER``.

Nobody needs to run this: its results are in the repository. It documents their origin, and makes them again. ``FOLDER``
holds one folder for each Debian package, filled by ``apt-get download PACKAGE`` and ``dpkg -x PACKAGE_*.deb
FOLDER/PACKAGE``; the photographs of the Python packages are read from the environment.
"""

import argparse
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rc_grpo.pocket.photographs import ASSETS, PHOTOGRAPHS, Photograph
from rc_grpo.pocket.world import SPRITES

SHORT_SIDE = 288
"""Pixels: a crop of 60 % still shrinks to 128, so no task shows an enlarged photograph."""

JPEG_QUALITY = 90
EMOJI_PACKAGE = "fonts-noto-color-emoji"
EMOJI_SIZE = 109
"""The one size, in pixels, of Noto Color Emoji's bitmaps."""

_PYTHON_PACKAGES = frozenset({"scikit-image", "scikit-learn", "matplotlib"})

_HEAD = """# Credits

Made by `rc_grpo/pocket/collect.py`. The photographs were cropped to at most 16:10, shrunk to a short side of {side}
pixels and saved as JPEG; each stays under its own licence, stated here as its package states it. `heldout`
photographs are never trained on.

| file | origin | author | licence | split |
| --- | --- | --- | --- | --- |
"""

_SPRITES = """
## Sprites

`sprites/*.png` are glyphs of Noto Color Emoji (Debian package `{package}`), copyright Google Inc., under the SIL Open
Font License 1.1, rendered at {size} pixels and cropped.
"""


def origin(photograph: Photograph, debian: Path) -> Path:
    """Return where a photograph's original lies, given the folder of unpacked Debian packages."""
    root = Path(sysconfig.get_path("purelib")) if photograph.origin in _PYTHON_PACKAGES else debian / photograph.origin
    return root / photograph.path


def shrink(image: Image.Image) -> Image.Image:
    """Return an RGB image with a short side of `SHORT_SIDE` pixels, its long side cropped to 16:10."""
    rgb = image.convert("RGB")
    width, height = rgb.size
    short = min(width, height)
    keep_x, keep_y = min(width, round(1.6 * short)), min(height, round(1.6 * short))
    left, top = (width - keep_x) // 2, (height - keep_y) // 2
    scale = SHORT_SIDE / short
    size = (round(keep_x * scale), round(keep_y * scale))
    return rgb.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + keep_x, top + keep_y))


def render(glyph: str, font: Path) -> Image.Image:
    """Return one emoji as RGBA, cropped to what it shows and padded to a square."""
    canvas = Image.new("RGBA", (2 * EMOJI_SIZE, 2 * EMOJI_SIZE))
    face = ImageFont.truetype(str(font), EMOJI_SIZE)
    ImageDraw.Draw(canvas).text((EMOJI_SIZE // 4, EMOJI_SIZE // 4), glyph, font=face, embedded_color=True)
    box = Image.fromarray((np.asarray(canvas)[..., 3] > 0).astype(np.uint8)).getbbox()
    if box is None:
        raise ValueError(f"{font} has no glyph for {glyph!r}")
    cropped = canvas.crop(box)
    side = max(cropped.size)
    square = Image.new("RGBA", (side, side))
    square.paste(cropped, ((side - cropped.width) // 2, (side - cropped.height) // 2))
    return square


def credits() -> str:
    """Return the text of CREDITS.md."""
    rows = (
        f"| photographs/{p.name}.jpg | {p.origin}: {p.path} | {p.author} | {p.licence} | {p.split} |"
        for p in PHOTOGRAPHS
    )
    head = _HEAD.format(side=SHORT_SIDE)
    return head + "\n".join(rows) + "\n" + _SPRITES.format(package=EMOJI_PACKAGE, size=EMOJI_SIZE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write photographs, sprites and CREDITS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--debian", type=Path, required=True, help="folder of unpacked Debian packages")
    debian: Path = parser.parse_args(arguments).debian
    for folder in ("photographs", "sprites"):
        (ASSETS / folder).mkdir(parents=True, exist_ok=True)
    for photograph in PHOTOGRAPHS:
        with Image.open(origin(photograph, debian)) as image:
            shrink(image).save(photograph.file, quality=JPEG_QUALITY, optimize=True)
    font = debian / EMOJI_PACKAGE / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
    for name, glyph in SPRITES.items():
        render(glyph, font).save(ASSETS / "sprites" / f"{name}.png", optimize=True)
    (ASSETS / "CREDITS.md").write_text(credits(), encoding="utf-8")


if __name__ == "__main__":
    main()
