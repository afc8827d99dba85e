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
        origin: the package it was taken from (a Python distribution or a Debian package), a key of `collect.SOURCES`.
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
_AVATARS = "usr/share/plasma/avatars/photos"
_THEMES = "usr/share/wordpress/wp-content/themes"
_LANDS = "usr/share/games/endless-sky/images/land"


def _skimage(name: str, file: str, author: str, licence: str, split: Split = "train") -> Photograph:
    return Photograph(name, "scikit-image", f"skimage/data/{file}", author, licence, split)


def _sklearn(name: str, file: str, author: str, split: Split = "train") -> Photograph:
    return Photograph(name, "scikit-learn", f"sklearn/datasets/images/{file}", author, "CC-BY-2.0", split)


def _lomiri(name: str, file: str, author: str, licence: str = "CC-BY-4.0", split: Split = "train") -> Photograph:
    return Photograph(name, "lomiri-wallpapers-16.04", f"{_BACKGROUNDS}/{file}", author, licence, split)


def _budgie(name: str, file: str, split: Split = "train") -> Photograph:
    path = f"{_BACKGROUNDS}/budgie/{file}.jpg"
    return Photograph(name, "budgie-backgrounds", path, "Budgie Desktop Developers", "CC0-1.0", split)


def _plasma(name: str, file: str, author: str, split: Split = "train") -> Photograph:
    return Photograph(name, "plasma-workspace-data", f"{_AVATARS}/{file}.png", author, "CC0-1.0", split)


def _twentyfour(name: str, file: str, split: Split = "train") -> Photograph:
    path = f"{_THEMES}/twentytwentyfour/assets/images/{file}.webp"
    return Photograph(name, "wordpress-theme-twentytwentyfour", path, "not named (rawpixel)", "CC0-1.0", split)


def _twentyfive(name: str, file: str, author: str = "not named (rawpixel)", split: Split = "train") -> Photograph:
    path = f"{_THEMES}/twentytwentyfive/assets/images/{file}.webp"
    return Photograph(name, "wordpress-theme-twentytwentyfive", path, author, "CC0-1.0", split)


def _gramps(name: str, file: str, author: str, split: Split = "train") -> Photograph:
    path = f"usr/share/doc/gramps/example/gramps/{file}"
    return Photograph(name, "gramps", path, author, "CC-BY-2.0", split)


def _land(name: str, file: str, split: Split = "train", author: str = "not named (Unsplash)") -> Photograph:
    return Photograph(name, "endless-sky-data", f"{_LANDS}/{file}.jpg", author, "public domain", split)


PHOTOGRAPHS: tuple[Photograph, ...] = (
    _skimage("astronaut", "astronaut.png", "NASA", "public domain"),
    _skimage("brick", "brick.png", "CC0Textures", "CC0-1.0"),
    _skimage("camera", "camera.png", "Lav Varshney", "CC0-1.0"),
    _skimage("chelsea", "chelsea.png", "Stefan van der Walt", "CC0-1.0"),
    _skimage("coffee", "coffee.png", "Rachel Michetti", "CC0-1.0", split="heldout"),
    _skimage("gravel", "gravel.png", "CC0Textures", "CC0-1.0"),
    _skimage("hubble", "hubble_deep_field.jpg", "NASA", "public domain"),
    _skimage("rocket", "rocket.jpg", "SpaceX", "public domain", split="heldout"),
    _sklearn("china", "china.jpg", "danielbuechele (Flickr)", split="heldout"),
    _sklearn("dahlia", "flower.jpg", "vultilion (Flickr)"),
    _lomiri("aitzgorri", "aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi"),
    _lomiri("friends", "friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi"),
    _lomiri("life", "life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi"),
    _lomiri("bowl", "Picture_0B_by_freespace.jpg", "Trevor 'Freespace'"),
    _lomiri("brushes", "Picture_1A_by_freespace.jpg", "Trevor 'Freespace'"),
    _lomiri("mountains", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", split="heldout"),
    _lomiri("seeding", "seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0", split="heldout"),
    _lomiri("sunset", "sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi"),
    _lomiri("wine", "Wine_by_Jakkub_Mede.jpg", "Jakub Mede", split="heldout"),
    _budgie("spiral_facade", "abstract-spiral"),
    _budgie("beacon_street", "beacon-street-sunset"),
    _budgie("periwinkle", "blue-periwinkle"),
    _budgie("wren", "canyon-wren"),
    _budgie("courtyard", "casa-mila"),
    _budgie("dune_hike", "extreme-desert-hike"),
    _budgie("trestle", "high-trestle-trail"),
    _budgie("lake_sherburne", "lake-sherburne"),
    _budgie("otters", "oakland-zoo-otters"),
    _budgie("osprey", "perched-osprey", split="heldout"),
    _budgie("piazza", "piazza-gae-aulenti"),
    _budgie("colosseum", "roman-colosseum", split="heldout"),
    _budgie("saturn", "saturnian-profile"),
    _budgie("singapore", "singaporean-cityscape"),
    _budgie("tea_gardens", "tea-gardens"),
    _plasma("air_balloon", "Air Balloon", "Skitterphoto", split="heldout"),
    _plasma("moonwalk", "Astronaut", "Pixabay"),
    _plasma("books", "Books", "Pixabay"),
    _plasma("paintbrushes", "Brushes", "Pixabay"),
    _plasma("bulb", "Bulb", "Skitterphoto", split="heldout"),
    _plasma("car", "Car", "Pixabay"),
    _plasma("lying_cat", "Cat", "Skitterphoto"),
    _plasma("chameleon", "Chameleon", "Pixabay", split="heldout"),
    _plasma("cocktail", "Cocktail", "Public Domain Pictures"),
    _plasma("retriever", "Dog", "Snapwire", split="heldout"),
    _plasma("goldfish", "Fish", "Skitterphoto"),
    _plasma("gamepad", "Gamepad", "Pixabay"),
    _plasma("owl", "Owl", "Pixabay"),
    _plasma("pancakes", "Pancakes", "Skitterphoto"),
    _plasma("lorikeet", "Parrot", "Skitterphoto"),
    _plasma("pencils", "Pencils", "Public Domain Pictures"),
    _plasma("soccer", "Soccer", "Pixabay", split="heldout"),
    _plasma("sunflower", "Sunflower", "Snapwire"),
    _plasma("sushi", "Sushi", "Skitterphoto", split="heldout"),
    _twentyfour("museum", "museum", split="heldout"),
    _twentyfour("tourist", "tourist-and-building"),
    _twentyfour("spiral_stairs", "art-gallery"),
    _twentyfour("angular_roof", "angular-roof"),
    _twentyfour("windows", "windows"),
    _twentyfour("facade", "abstract-geometric-art"),
    _twentyfour("green_stairs", "green-staircase"),
    _twentyfive("windswept_tree", "404-image", "Leslie Adkin"),
    _twentyfive("anthurium", "category-anthuriums"),
    _twentyfive("cactus", "category-cactus", "Ansel Adams"),
    _twentyfive("pale_sunflower", "category-sunflowers"),
    _twentyfive("peace_lily", "botany-flowers"),
    _twentyfive("bellflower", "campanula-alliariifolia-flower"),
    _twentyfive("phacelia", "grid-flower-2", "Karl Blossfeldt"),
    _twentyfive("hibiscus", "grid-flower-1", split="heldout"),
    _twentyfive("flower_meadow", "flower-meadow-square"),
    _twentyfive("coral", "coral-square"),
    _twentyfive("portrait", "hero-podcast", "Paul Strand", split="heldout"),
    _twentyfive("man_in_hat", "man-in-hat"),
    _twentyfive("buttercup", "northern-buttercups-flowers"),
    _twentyfive("nurse", "nurse"),
    _twentyfive("parthenon", "parthenon-square", "Rhomaides Frères", split="heldout"),
    _twentyfive("cliff_palace", "ruins-image"),
    _twentyfive("typewriter", "typewriter", split="heldout"),
    _twentyfive("splashing", "woman-splashing-water"),
    _twentyfive("marsh_birds", "marshland-birds-square", split="heldout"),
    _twentyfive("columbine", "dallas-creek-square", "Boyd Norton"),
    _twentyfive("impatiens", "akaka-falls-state-park-flora"),
    _twentyfive("lupine", "malibu-plantlife"),
    _gramps("harbour_portrait", "O3.jpg", "mescon (Flickr)"),
    _gramps("photographer", "O4.jpg", "pedrosimoes7 (Flickr)", split="heldout"),
    _gramps("couple", "O5.jpg", "pedrosimoes7 (Flickr)"),
    _land("badlands", "badlands0"),
    _land("red_badlands", "badlands7"),
    _land("pier", "beach0", split="heldout"),
    _land("sea_stacks", "beach2"),
    _land("grey_beach", "beach3"),
    _land("red_beach", "beach5"),
    _land("salt_flat", "canyon7", split="heldout"),
    _land("river_city", "city4", split="heldout"),
    _land("towers_in_haze", "city6"),
    _land("storm_city", "city8"),
    _land("dusk_tower", "city9"),
    _land("harbour_skyline", "city10"),
    _land("manhattan", "city11"),
    _land("golden_skyline", "city12"),
    _land("night_dunes", "desert2"),
    _land("river_valley", "fields1"),
    _land("cypresses", "fields5", split="heldout"),
    _land("green_cliffs", "fields6"),
    _land("misty_hills", "fields7"),
    _land("cloudy_peaks", "fog0", split="heldout"),
    _land("green_crag", "fog4"),
    _land("gorge", "forest3"),
    _land("dark_forest", "forest5"),
    _land("snow_patches", "hills2"),
    _land("lava_at_sea", "lava1", split="heldout"),
    _land("cinder_cones", "lava6"),
    _land("mirror_lake", "mountain1"),
    _land("granite_tower", "mountain3"),
    _land("lake_delta", "mountain5"),
    _land("snow_ridge", "mountain8"),
    _land("sea_well", "sea3"),
    _land("headland", "sea8"),
    _land("sea_of_clouds", "sky2"),
    _land("red_sky", "sky3"),
    _land("pyramid_peak", "sky8", split="heldout"),
    _land("winter_valley", "snow1"),
    _land("white_plain", "snow2"),
    _land("glacier", "snow3", split="heldout"),
    _land("blue_ice", "snow10"),
    _land("evening_lake", "water0"),
    _land("earthrise", "earthrise", author="NASA"),
    _land("launch_tower", "nasa1", author="NASA"),
    _land("coast_launchpad", "nasa3", author="NASA"),
    _land("soyuz_pad", "nasa6", author="NASA"),
    _land("lightning", "nasa7", author="NASA"),
    _land("station_corridor", "space1", author="NASA"),
    _land("cupola", "space3", author="NASA"),
    _land("station_hatch", "space4", author="NASA"),
    _land("shuttle_hangar", "space5", split="heldout", author="NASA"),
    _land("rocket_hall", "station1", author="NASA"),
    _land("crater", "lava0", author="USGS"),
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
