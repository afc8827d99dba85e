"""How the committed assets were made: ``python -m rc_grpo.pocket.collect --debian FOLDER``.

Nobody needs to run this: its results are in the repository. It documents their origin, and makes them again. ``FOLDER``
holds one folder for each Debian package, filled by ``apt-get download PACKAGE`` and ``dpkg -x PACKAGE_*.deb
FOLDER/PACKAGE``; the photographs of the Python packages are read from the environment. `SOURCES` names the versions.
"""

import argparse
import sysconfig
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rc_grpo.pocket.objects import SPRITES
from rc_grpo.pocket.photographs import ASSETS, PHOTOGRAPHS, Photograph

SHORT_SIDE = 288
"""Pixels: a crop of 60 % still shrinks to 128, so no task shows an enlarged photograph."""

JPEG_QUALITY = 90
EMOJI_PACKAGE = "fonts-noto-color-emoji"
EMOJI_SIZE = 109
"""The one size, in pixels, of Noto Color Emoji's bitmaps."""


@dataclass(frozen=True)
class Source:
    """A package that photographs were taken from.

    Attributes:
        version: the one they were taken from.
        release: who distributes it: PyPI, or a release of Debian.
        statement: the file of the package that states their licences.
        words: what it states, word for word.
    """

    version: str
    release: str
    statement: str
    words: tuple[str, ...]


SOURCES: dict[str, Source] = {
    "scikit-image": Source(
        "0.26.0",
        "PyPI",
        "skimage/data/_fetchers.py",
        (
            "No known copyright restrictions, released into the public domain. (astronaut)",
            "licensed under the Creative Commons CC0 License. (brick, gravel)",
            "No copyright restrictions. CC0 by the photographer (camera, chelsea, coffee)",
            "may be freely used in the public domain (hubble)",
            "released in the public domain (rocket)",
        ),
    ),
    "scikit-learn": Source(
        "1.9.1",
        "PyPI",
        "sklearn/datasets/images/README.txt",
        (
            "Released under a creative commons license. [1] Attribution: Some rights reserved by danielbuechele [2] "
            "(of both; for dahlia, [2] is the page of vultilion)",
            "[1] https://creativecommons.org/licenses/by/2.0/",
        ),
    ),
    "lomiri-wallpapers-16.04": Source(
        "20.04.0-4",
        "Debian 13",
        "usr/share/doc/lomiri-wallpapers-16.04/copyright",
        ("License: CC-BY-4.0", "License: CC0-1.0 (seeding)"),
    ),
    "budgie-backgrounds": Source(
        "3.0-1",
        "Debian 13",
        "usr/share/doc/budgie-backgrounds/copyright",
        ("Files: * Copyright: 2022-2024, Budgie Desktop Developers License: CC0-1.0",),
    ),
    "plasma-workspace-data": Source(
        "4:6.3.6-2",
        "Debian 13",
        "usr/share/plasma/avatars/photos/*.png.license",
        ("SPDX-License-Identifier: CC0-1.0",),
    ),
    "wordpress-theme-twentytwentyfour": Source(
        "6.8.12+dfsg1-0+deb13u1",
        "Debian 13",
        "usr/share/wordpress/wp-content/themes/twentytwentyfour/readme.txt",
        ("License: CC0 https://creativecommons.org/publicdomain/zero/1.0/",),
    ),
    "wordpress-theme-twentytwentyfive": Source(
        "6.8.12+dfsg1-0+deb13u1",
        "Debian 13",
        "usr/share/wordpress/wp-content/themes/twentytwentyfive/readme.txt",
        ("Free public domain CC0 image.",),
    ),
    "gramps": Source(
        "6.0.1+dfsg-1",
        "Debian 13",
        "usr/share/doc/gramps/example/gramps/image_credits.md",
        (
            '"Portrait of a Canon-man" by mescon is marked with CC BY 2.0.',
            '"Woman Photographer" by pedrosimoes7 is marked with CC BY 2.0.',
            '"Happy couple" by pedrosimoes7 is marked with CC BY 2.0.',
        ),
    ),
    "endless-sky-data": Source(
        "0.9.8-1.2",
        "Debian 12",
        "usr/share/doc/endless-sky-data/copyright",
        (
            "License: public-domain Taken from unsplash.com, a collection of photographs that have been donated and "
            "placed in the public domain.",
            "License: public-domain From NASA, and therefore in the public domain because they were created by "
            "government employees while doing work for the government.",
            "License: public-domain From the USGS, and therefore in the public domain because they were created by "
            "government employees while doing work for the government. (crater)",
        ),
    ),
}
"""Each package that photographs were taken from, by name."""

_HEAD = """# Credits

Made by `rc_grpo/pocket/collect.py`. The photographs were cropped to at most 16:10, shrunk to a short side of {side}
pixels and saved as JPEG; each stays under its own licence, stated here as its package states it. `heldout`
photographs are never trained on. The licences are at https://creativecommons.org/publicdomain/zero/1.0/ (CC0-1.0),
https://creativecommons.org/licenses/by/2.0/ (CC-BY-2.0) and https://creativecommons.org/licenses/by/4.0/ (CC-BY-4.0).

| file | origin | author | licence | split |
| --- | --- | --- | --- | --- |
"""

_PACKAGES = """
## Packages

Where the licences are stated, and in which words (in brackets: ours).

| package | photographs | stated in | words |
| --- | --- | --- | --- |
"""

_SPRITES = """
## Sprites

`sprites/*.png` are glyphs of Noto Color Emoji (Debian package `{package}`), copyright Google Inc., under the SIL Open
Font License 1.1, rendered at {size} pixels and cropped.
"""


def origin(photograph: Photograph, debian: Path) -> Path:
    """Return where a photograph's original lies, given the folder of unpacked Debian packages."""
    installed = SOURCES[photograph.origin].release == "PyPI"
    return (Path(sysconfig.get_path("purelib")) if installed else debian / photograph.origin) / photograph.path


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
    counts = Counter(photograph.origin for photograph in PHOTOGRAPHS)
    packages = (
        f"| {name} {source.version} ({source.release}) | {counts[name]} | {source.statement} | "
        + "<br>".join(source.words)
        + " |"
        for name, source in SOURCES.items()
    )
    tables = (_HEAD.format(side=SHORT_SIDE), rows), (_PACKAGES, packages)
    written = "".join(head + "\n".join(lines) + "\n" for head, lines in tables)
    return written + _SPRITES.format(package=EMOJI_PACKAGE, size=EMOJI_SIZE)


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
