import io
import math

import numpy as np
import pytest
from PIL import Image

from rc_grpo.evaluation.compbench.frames import Frames, Originals
from rc_grpo.images import encode_png


def grey(row):
    return np.repeat(np.asarray(row, np.uint8)[None, :, None], len(row), axis=0).repeat(3, axis=2)


def keys(x):
    """Keys' cubic with a = -0.5, which Pillow calls bicubic."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def test_images_are_resized_bicubically():
    row = [64, 64, 64, 64, 192, 192, 192, 192]
    read = Frames.read(
        Originals(encode_png(grey(row)), encode_png(np.zeros((8, 8), np.uint8))), encode_png(grey(row)), 16
    )
    for at in range(16):
        middle = (at + 0.5) / 2
        weights = np.array([keys(i + 0.5 - middle) for i in range(8)])
        expected = weights @ row / weights.sum()
        assert read.edited[8, at, 0] == pytest.approx(expected, abs=0.51)
    assert read.source.max() > 192  # A bicubic edge overshoots, a bilinear one does not.


def test_masks_are_resized_by_the_nearest_pixel_and_keep_their_levels():
    mask = np.array([[0, 1], [255, 7]], np.uint8)
    read = Frames.read(Originals(encode_png(grey([9, 9])), encode_png(mask)), encode_png(grey([9, 9])))
    assert read.mask.shape == (512, 512)
    for (row, column), level in np.ndenumerate(mask):
        assert (read.mask[row * 256 : (row + 1) * 256, column * 256 : (column + 1) * 256] == level).all()


def test_the_aspect_is_ignored_and_each_image_may_have_its_own_size():
    images = [encode_png(np.full((*size, 3), 5, np.uint8)) for size in ((3, 9), (100, 20), (512, 512))]
    read = Frames.read(Originals(images[0], encode_png(np.full((7, 5), 255, np.uint8)), images[1]), images[2])
    for image in (read.source, read.edited, read.target):
        assert image.shape == (512, 512, 3)
        assert (image == 5).all()


def test_transparency_is_dropped_as_the_script_drops_it():
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([grey([40, 40]), np.zeros((2, 2), np.uint8)])).save(buffer, format="PNG")
    mask = encode_png(np.full((2, 2), 255, np.uint8))
    assert (Frames.read(Originals(buffer.getvalue(), mask), buffer.getvalue(), 2).source == 40).all()


@pytest.mark.parametrize("broken", ["source", "mask", "edit", "target"])
def test_an_unreadable_image_is_named(broken):
    image = encode_png(grey([1, 2]))
    data = {name: image[:40] if name == broken else image for name in ("source", "mask", "edit", "target")}
    with pytest.raises(ValueError, match=f"the {broken} is not a readable image"):
        Frames.read(Originals(data["source"], data["mask"], data["target"]), data["edit"], 2)


def test_numbers_without_a_value_survive_strict_json():
    from rc_grpo.evaluation.compbench.scores import Scores

    scores = Scores(psnr=math.inf, ssim=0.5)
    plain = scores.as_json()
    assert plain == {"lc_i": None, "lc_t": None, "psnr": "inf", "ssim": 0.5, "lpips": None}
    again = Scores.from_json(plain)
    assert again.psnr == math.inf
    assert math.isnan(again.lc_i)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
BOMB = b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
BOMB += (60_000).to_bytes(4, "little") * 2 + b"\x01\0\x18\0" + bytes(24)


@pytest.mark.parametrize("data", [EPS, BOMB, b"BM", b""])
def test_no_image_of_a_benchmark_starts_a_program_or_fills_the_memory(data, monkeypatch):
    def started(*arguments, **options):
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("subprocess.check_call", started)
    good = encode_png(grey([0, 255]))
    for originals, edit in (
        (Originals(data, good), good),
        (Originals(good, data), good),
        (Originals(good, good), data),
    ):
        with pytest.raises(ValueError, match="is not a readable image"):
            Frames.read(originals, edit, 4)
