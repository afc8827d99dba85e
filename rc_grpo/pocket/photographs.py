"""The photographs of the pocket world: where each comes from, who took it, under what licence, and its split.

The split is by photograph, so that no held-out task shows a background the editor was trained on.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from rc_grpo.images import Pixels

Split = Literal["train", "heldout"]

ASSETS: Path = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Photograph:
    """One photograph and its provenance.

    Attributes:
        name: stem of its file under ``assets/photographs``.
        origin: the package it was taken from (a Python distribution or a Debian package).
        path: its place inside that package: relative to ``site-packages`` or to the Debian package's root.
        author: as the package states it.
        licence: as the package states it.
        split: whether tasks of the training or of the held-out set are built on it.
    """

    name: str
    origin: str
    path: str
    author: str
    licence: str
    split: Split = "train"

    @property
    def file(self) -> Path:
        """The committed JPEG."""
        return ASSETS / "photographs" / f"{self.name}.jpg"


_BACKGROUNDS = "usr/share/backgrounds"
_PLASMA = "usr/share/wallpapers"
_LXQT = "usr/share/lxqt/wallpapers"


def _skimage(name: str, file: str, author: str, licence: str, split: Split = "train") -> Photograph:
    return Photograph(name, "scikit-image", f"skimage/data/{file}", author, licence, split)


def _lomiri(name: str, release: str, file: str, author: str, licence: str, split: Split = "train") -> Photograph:
    return Photograph(name, f"lomiri-wallpapers-{release}", f"{_BACKGROUNDS}/{file}", author, licence, split)


def _mate(name: str, file: str, author: str, split: Split = "train") -> Photograph:
    return Photograph(name, "mate-backgrounds", f"{_BACKGROUNDS}/mate/nature/{file}", author, "GPL-2+", split)


def _lxqt(name: str, file: str, author: str = "Razor team, LXQt team", split: Split = "train") -> Photograph:
    return Photograph(name, "lxqt-themes", f"{_LXQT}/{file}", author, "LGPL-2.1+", split)


def _plasma(name: str, folder: str, author: str, split: Split = "train") -> Photograph:
    path = f"{_PLASMA}/{folder}/contents/images/2560x1600.jpg"
    return Photograph(name, "plasma-workspace-wallpapers", path, author, "LGPL-3 (metadata), GPL-2+ (package)", split)


PHOTOGRAPHS: tuple[Photograph, ...] = (
    _skimage("astronaut", "astronaut.png", "NASA", "public domain"),
    _skimage("brick", "brick.png", "CC0Textures", "CC0-1.0"),
    _skimage("camera", "camera.png", "Lav Varshney", "CC0-1.0"),
    _skimage("chelsea", "chelsea.png", "Stefan van der Walt", "CC0-1.0"),
    _skimage("coffee", "coffee.png", "Rachel Michetti", "CC0-1.0", "heldout"),
    _skimage("gravel", "gravel.png", "CC0Textures", "CC0-1.0"),
    _skimage("rocket", "rocket.jpg", "SpaceX", "public domain", "heldout"),
    Photograph(
        "china", "scikit-learn", "sklearn/datasets/images/china.jpg", "danielbuechele (Flickr)", "CC-BY-2.0", "heldout"
    ),
    Photograph("dahlia", "scikit-learn", "sklearn/datasets/images/flower.jpg", "vultilion (Flickr)", "CC-BY-2.0"),
    Photograph(
        "grace_hopper",
        "matplotlib",
        "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
        "James S. Davis, United States Navy",
        "public domain",
    ),
    _lomiri("aitzgorri", "16.04", "aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("bridge", "16.04", "Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", "CC-BY-SA-4.0"),
    _lomiri("dragonfly", "16.04", "Dragonfly_by_Bolly.jpg", "Bolly", "CC-BY-SA-4.0"),
    _lomiri("free", "16.04", "free_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
    _lomiri("friends", "16.04", "friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("greentock", "16.04", "greentock_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
    _lomiri("life", "16.04", "life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("bowl", "16.04", "Picture_0B_by_freespace.jpg", "Trevor 'Freespace'", "CC-BY-4.0"),
    _lomiri("brushes", "16.04", "Picture_1A_by_freespace.jpg", "Trevor 'Freespace'", "CC-BY-4.0"),
    _lomiri(
        "mountains", "16.04", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", "heldout"
    ),
    _lomiri("seeding", "16.04", "seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0", "heldout"),
    _lomiri("sunset", "16.04", "sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("wine", "16.04", "Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0", "heldout"),
    _lomiri("nuthatch", "20.04", "Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", "CC-BY-SA-3.0"),
    _mate("aqua", "Aqua.jpg", "Charles Barbin"),
    _mate("blinds", "Blinds.jpg", "Lennart Poettering, Andrea Cimitan"),
    _mate("dune", "Dune.jpg", "Marco Cogoni, Hylke Bons", "heldout"),
    _mate("fresh_flower", "FreshFlower.jpg", "Jens Ansorg"),
    _mate("garden", "Garden.jpg", "Charles Barbin"),
    _mate("meadow", "GreenMeadow.jpg", "Timothy Schellhase, Lapo Calamandrei"),
    _mate("ladybird", "LadyBird.jpg", "Charles Barbin", "heldout"),
    _mate("rain_drops", "RainDrops.jpg", "blackcombwhistler07"),
    _mate("storm", "Storm.jpg", "Sergey Nazarov"),
    _mate("two_wings", "TwoWings.jpg", "Charles Barbin, Hylke Bons"),
    _mate("wood", "Wood.jpg", "Jean-François Fortin Tam"),
    _mate("yellow_flower", "YellowFlower.jpg", "Charles Barbin"),
    _lxqt("wimer_butterfly", "Butterfly-Kenneth-Wimer.jpg", "Kenneth Wimer, LXQt team"),
    _lxqt("after_the_rain", "after-the-rain.jpg"),
    _lxqt("fog", "fog.jpg"),
    _lxqt("hills", "this-is-not-windows.jpg"),
    _lxqt("apple_flower", "appleflower.png"),
    _lxqt("thistle", "butterfly.png", split="heldout"),
    _lxqt("violets", "flowers.png"),
    _lxqt("clouds", "cloud.png"),
    _plasma("by_the_water", "BytheWater", "Maciej Wiklo"),
    _plasma("cold_ripple", "ColdRipple", "Risto Saukonpää"),
    _plasma("colorful_cups", "ColorfulCups", "Dmitri Popov", "heldout"),
    _plasma("darkest_hour", "DarkestHour", "Risto Saukonpää"),
    _plasma("evening_glow", "EveningGlow", "Ian Hex", "heldout"),
    _plasma("fallen_leaf", "FallenLeaf", "Martin Klapetek"),
    _plasma("grey", "Grey", "Sigi Sagi"),
    _plasma("kite", "Kite", "Risto Saukonpää"),
    _plasma("one_stands_out", "OneStandsOut", "Risto Saukonpää", "heldout"),
    _plasma("path", "Path", "Risto Saukonpää"),
    _plasma("summer", "summer_1am", "Risto Saukonpää"),
)


def photographs(split: Split) -> tuple[Photograph, ...]:
    """Return the photographs of one split, in the table's order."""
    return tuple(photograph for photograph in PHOTOGRAPHS if photograph.split == split)


@cache
def pixels(photograph: Photograph) -> Pixels:
    """Return a photograph's pixels, RGB ``[H, W, 3]`` uint8 with a short side of about 288; kept once read."""
    with Image.open(photograph.file) as image:
        array = np.asarray(image.convert("RGB"))
    array.setflags(write=False)
    return array
