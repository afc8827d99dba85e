"""Other people's editors: called as their own signature says, the same picture for the same seed, nothing unsaid."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from PIL import Image

from rc_grpo.config import EditorConfig
from rc_grpo.editor.reference import editor as module
from rc_grpo.editor.reference import source as source_module
from rc_grpo.editor.reference.editor import EditFailedError, Reference, ReferenceEditor
from rc_grpo.editor.reference.source import PipelineError, PipelineSource
from rc_grpo.editor.reference.terms import SDEDIT_STRENGTH, Options, Terms
from rc_grpo.images import decode_rgb
from tests.families import KLEIN, QWEN, source
from tests.references import INPAINT, PIX2PIX, SDEDIT, TEXT, UNETS, task, write_all

EDITOR = EditorConfig(model="unused", dtype="float32", device="cpu", resolution=64)
STEPS = 2
NAMES = [*(small.name for small in UNETS), KLEIN.name, QWEN.name]
OWN_STRENGTH = {INPAINT.name: 1.0}


@pytest.fixture(autouse=True)
def small_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the pipelines shows its model every source with a million pixels, for which it has no argument."""
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64**2)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 64**2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture(scope="module")
def loaded(folders: Path) -> Callable[[str], ReferenceEditor]:
    known: dict[str, ReferenceEditor] = {}

    def load(name: str) -> ReferenceEditor:
        if name not in known:
            known[name] = ReferenceEditor(Reference.open(str(folders / name), Options(steps=STEPS)), EDITOR)
        return known[name]

    return load


def stock(folder: Path, seed: int, *, masked: bool = False, **arguments: Any) -> np.ndarray:
    """What somebody with diffusers alone gets."""
    index = json.loads((folder / "model_index.json").read_text())["_class_name"]
    chosen = {"StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline"}.get(index, index)
    pipeline = getattr(diffusers, chosen).from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if masked:
        arguments["mask_image"] = Image.fromarray(np.repeat([[255] * 32 + [0] * 32], 64, axis=0).astype(np.uint8))
    result = pipeline(
        image=Image.fromarray(source()),
        prompt="make it red",
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(seed),
        **arguments,
    )
    return np.asarray(result.images[0])


STOCK = {
    PIX2PIX.name: {},
    TEXT.name: {"strength": 0.75},
    SDEDIT.name: {"strength": 0.75},
    INPAINT.name: {"masked": True, "height": 64, "width": 64},
    KLEIN.name: {"height": 64, "width": 64},
    QWEN.name: {"height": 64, "width": 64, "negative_prompt": " ", "true_cfg_scale": 4.0},
}


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_is_the_pipeline_s_own(name: str, folders: Path, loaded: Callable[[str], ReferenceEditor]) -> None:
    edited = loaded(name).edit(task(), 5)
    assert np.array_equal(edited.pixels, stock(folders / name, 5, **STOCK[name]))
    assert not edited.resized


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_is_the_same_picture_whatever_was_drawn_before(
    name: str, loaded: Callable[[str], ReferenceEditor]
) -> None:
    editor = loaded(name)
    first = editor.edit(task(), 5).pixels
    state = torch.get_rng_state()
    other = editor.edit(task(), 6).pixels
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert np.array_equal(editor.edit(task("another"), 5).pixels, first)
    assert not np.array_equal(other, first)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_counts_where_it_is_taken_and_is_said_where_it_is_not(
    name: str, folders: Path, loaded: Callable[[str], ReferenceEditor]
) -> None:
    left, right = (loaded(name).edit(task(columns=columns), 5).pixels for columns in (slice(32), slice(32, 64)))
    reference = Reference.open(str(folders / name), Options())
    takes = name == INPAINT.name
    assert np.array_equal(left, right) != takes
    assert ("mask" in reference.as_json()["takes_no"]) != takes
    assert ("takes no mask" in reference.in_words) != takes
    assert reference.as_json()["takes_mask"] == takes


def test_what_is_taken_is_known_of_the_class_alone(folders: Path) -> None:
    opened = {name: Reference.open(str(folders / name), Options()).as_json() for name in NAMES}
    assert opened[PIX2PIX.name]["arguments"] == {
        "num_inference_steps": 100, "guidance_scale": 7.5, "image_guidance_scale": 1.5, "output_type": "np",
    }  # fmt: skip
    assert opened[QWEN.name]["arguments"] == {
        "num_inference_steps": 50, "true_cfg_scale": 4.0, "negative_prompt": " ", "output_type": "np",
    }  # fmt: skip
    assert [name for name in NAMES if "size" in opened[name]["takes_no"]] == [PIX2PIX.name, TEXT.name, SDEDIT.name]
    strengths = {name: one["arguments"].get("strength") for name, one in opened.items()}
    assert {name: value for name, value in strengths.items() if value is not None} == {
        TEXT.name: SDEDIT_STRENGTH, SDEDIT.name: SDEDIT_STRENGTH, INPAINT.name: 1.0,
    }  # fmt: skip


def test_a_text_to_image_folder_is_run_image_to_image_and_says_so(folders: Path) -> None:
    reference = Reference.open(str(folders / TEXT.name), Options())
    assert (reference.source.class_name, reference.class_name) == (TEXT.class_name, SDEDIT.class_name)
    assert f"is run as {SDEDIT.class_name} (SDEdit)" in reference.in_words
    assert "(SDEdit)" not in Reference.open(str(folders / SDEDIT.name), Options()).in_words


@pytest.mark.parametrize(
    ("name", "options", "argument", "value"),
    [
        (PIX2PIX.name, {"steps": 7}, "num_inference_steps", 7),
        (PIX2PIX.name, {"guidance": 3.0}, "guidance_scale", 3.0),
        (PIX2PIX.name, {"image_guidance": 2.0}, "image_guidance_scale", 2.0),
        (TEXT.name, {"strength": 0.5}, "strength", 0.5),
        (INPAINT.name, {"strength": 0.5}, "strength", 0.5),
        (QWEN.name, {"guidance": 2.0}, "true_cfg_scale", 2.0),
        (KLEIN.name, {"guidance": 2.0}, "guidance_scale", 2.0),
    ],
)
def test_an_option_reaches_its_argument_and_the_edits_provenance(
    name: str, options: dict[str, Any], argument: str, value: float, folders: Path
) -> None:
    plain, asked = (Reference.open(str(folders / name), Options(**given)) for given in ({}, options))
    assert asked.as_json()["arguments"] == plain.as_json()["arguments"] | {argument: value}
    assert asked.made_by(EDITOR, 0) != plain.made_by(EDITOR, 0)
    assert json.loads(json.dumps(asked.made_by(EDITOR, 0))) == asked.made_by(EDITOR, 0)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        (PIX2PIX.name, {"strength": 0.5}, r"pix2pix \(.*\) takes no strength; leave --strength out"),
        (KLEIN.name, {"image_guidance": 2.0}, "takes no image_guidance_scale; leave --image-guidance out"),
        (TEXT.name, {"steps": 3, "strength": 0.3}, "of 3 steps a strength of 0.3 leaves none; raise --steps"),
        (SDEDIT.name, {"steps": 1}, "leaves none"),
    ],
)
def test_an_option_that_is_not_taken_is_refused(name: str, options: dict[str, Any], says: str, folders: Path) -> None:
    with pytest.raises(PipelineError, match=says):
        Reference.open(str(folders / name), Options(**options))


def broken(folder: Path, **changed: Any) -> str:
    """Write an index alone; a key that is None is left out."""
    index = {"_class_name": PIX2PIX.class_name, "unet": ["diffusers", "UNet2DConditionModel"]} | changed
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({key: value for key, value in index.items() if value}))
    return str(folder)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"_class_name": None}, "names no _class_name"),
        ({"_class_name": ["pipeline", "MyPipeline"]}, "code of its own .its class .MyPipeline.*--edits FOLDER"),
        ({"_class_name": "MyPipeline"}, "is for MyPipeline, which this diffusers .* does not have.*--edits FOLDER"),
        ({"_class_name": "UNet2DConditionModel"}, "does not have"),
        ({"unet": ["my_unet", "MyUNet"]}, r"code of its own \(its unet\)"),
        ({"unet": ["os", "system"]}, r"code of its own \(its unet\)"),
        ({"_class_name": "DiTPipeline"}, r"DiTPipeline\) takes no image and no prompt"),
        ({"_class_name": "StableDiffusionImageVariationPipeline"}, "takes no prompt"),
        ({"_class_name": "WanImageToVideoPipeline"}, "makes video; make its edits with a program of your own"),
        ({"_class_name": "StableDiffusionControlNetPipeline"}, r"steered by an image \(controlnet\).*--edits FOLDER"),
        ({"_class_name": "FluxControlInpaintPipeline"}, r"steered by an image \(control_image\)"),
        ({"_class_name": "PixArtAlphaPipeline"}, "takes no image, and an editor is given both; name the folder"),
    ],
)
def test_what_is_no_editor_is_refused_by_folder_with_the_way_out(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = broken(tmp_path / "given", **changed)
    with pytest.raises(PipelineError, match=says) as refused:
        Reference.open(folder, Options())
    assert folder in str(refused.value)


def test_a_folder_that_is_none_of_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no folder of a diffusers pipeline: it has no model_index.json.*--edits"):
        Reference.open(str(tmp_path), Options())
    with pytest.raises(PipelineError, match="'no/such' cannot be loaded: it must be a folder"):
        Reference.open("no/such", Options())
    for text in ("{", "[]", "\xff", "[" * 100_000):
        (tmp_path / "model_index.json").write_text(text, "latin-1")
        with pytest.raises(PipelineError, match=r"model_index.json (cannot be read|holds no object)"):
            Reference.open(str(tmp_path), Options())


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_weights_that_are_pickles_are_refused_before_anything_is_loaded(
    suffix: str, folders: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folders / PIX2PIX.name, tmp_path / "copy"))
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(suffix))
    with pytest.raises(PipelineError, match=r"copy.*weights of its unet are pickles.*save them as safetensors"):
        Reference.open(str(copy), Options())


def test_what_is_missing_is_said_when_it_is_loaded(folders: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders / PIX2PIX.name, tmp_path / "copy"))
    reference = Reference.open(str(copy), Options())
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(PipelineError, match=r"copy' cannot be loaded.*weights as safetensors"):
        ReferenceEditor(reference, EDITOR)


def test_a_pipeline_is_known_by_its_files_and_not_by_its_place(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that there is a middle that is not read.
    monkeypatch.setattr(source_module, "_ENDS", 64)
    before = PipelineSource.find(str(folders / PIX2PIX.name))
    copy = Path(shutil.copytree(folders / PIX2PIX.name, tmp_path / "copy"))
    assert PipelineSource.find(str(copy)).identity == before.identity
    # Within a header's text, so that the file is whole.
    for name, early in (("unet/diffusion_pytorch_model.safetensors", b"pt"), ("scheduler/scheduler_config.json", b"{")):
        path = copy / name
        whole = path.read_bytes()
        assert whole.index(early) < source_module._ENDS
        for place, byte in ((-1, b"\t"), (whole.index(early), b" ")):
            changed = bytearray(whole)
            changed[place : place + 1 or None] = byte
            path.write_bytes(changed)
            assert PipelineSource.find(str(copy)).identity != before.identity, (name, place)
        path.write_bytes(whole)


def takes_image_in_a_list(self, prompt: str, image: list[PIL.Image.Image] | None = None) -> None: ...
def takes_bare_list(self, prompt: str, image: list | None = None) -> None: ...
def takes_either(self, prompt: str, image: list[PIL.Image.Image] | PIL.Image.Image | None = None) -> None: ...
def takes_one(self, prompt: str, image: PIL.Image.Image) -> None: ...
def takes_images(self, prompt: str, images: "list[Image] | None" = None, mask: Any = None) -> None: ...
def takes_unsaid(self, prompt: str, image, num_inference_steps: int | None = None) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("call", "image", "listed", "mask"),
    [
        (takes_image_in_a_list, "image", True, None),
        (takes_bare_list, "image", True, None),
        (takes_either, "image", False, None),
        (takes_one, "image", False, None),
        (takes_images, "images", True, "mask"),
        (takes_unsaid, "image", False, None),
    ],
)
def test_a_source_is_given_alone_or_in_a_list_as_the_signature_has_it(
    call: Callable[..., Any], image: str, listed: bool, mask: str | None
) -> None:
    terms = Terms.of("x", call, Options())
    assert (terms.image, terms.listed, terms.mask) == (image, listed, mask)
    assert terms.plain == {}


def test_a_pipeline_that_needs_more_than_a_task_has_is_refused() -> None:
    def call(self: Any, prompt: str, image: Any, depth: Any, pose: Any, height: int = 1) -> None: ...

    with pytest.raises(PipelineError, match=r"x needs depth, pose, which no task of a benchmark has.*--edits"):
        Terms.of("x", call, Options())


class Stub:
    """A pipeline that gives what it is told to."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.called: dict[str, Any] = {}

    def to(self, _device: Any) -> "Stub":
        return self

    def set_progress_bar_config(self, **_options: Any) -> None: ...

    def __call__(self, **arguments: Any) -> Any:
        self.called = arguments
        if isinstance(self.given, Exception):
            raise self.given
        return self.given if hasattr(self.given, "frames") or hasattr(self.given, "images") else images(self.given)


def images(array: Any, **others: Any) -> SimpleNamespace:
    return SimpleNamespace(images=[array], **others)


def edited(given: Any, folders: Path, monkeypatch: pytest.MonkeyPatch, name: str = PIX2PIX.name, **of_task: Any) -> Any:
    monkeypatch.setattr(module, "_load", lambda reference, editor: Stub(given))
    return ReferenceEditor(Reference.open(str(folders / name), Options()), EDITOR).edit(task(**of_task), 0)


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (96, 128)])
def test_a_picture_of_another_size_is_brought_to_the_size_of_the_source_and_told(
    size: tuple[int, int], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = edited(np.full((*size, 3), 0.5, np.float32), folders, monkeypatch)
    assert found.pixels.shape == (64, 64, 3)
    assert (found.came_as, found.resized) == (size, size != (64, 64))
    assert np.unique(found.pixels).tolist() == [128]


@pytest.mark.parametrize(
    ("given", "level"),
    [
        (Image.new("RGB", (64, 64), (7, 7, 7)), 7),
        (Image.new("L", (64, 64), 7), 7),
        (np.full((64, 64, 3), 7 / 255, np.float32), 7),
        (np.full((64, 64, 1), 7 / 255, np.float32), 7),
        (np.dstack([np.zeros((64, 64, 3)), np.zeros((64, 64, 1))]).astype(np.float32), 255),
        (np.full((64, 64, 3), 1.5, np.float32), 255),
    ],
)
def test_a_picture_is_read_in_whatever_form_it_comes(
    given: Any, level: int, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.unique(edited(given, folders, monkeypatch).pixels).tolist() == [level]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (RuntimeError("CUDA out of memory\nmore"), "the pipeline failed: RuntimeError: CUDA out of memory$"),
        (TypeError(""), "TypeError: no reason given"),
        (KeyError("x"), "KeyError"),
        (np.full((64, 64, 3), np.nan, np.float32), "values that are no numbers.*editor.dtype"),
        (np.zeros((64, 64, 2), np.float32), r"gave .*\[64, 64, 2\], which is no picture"),
        (np.zeros((2, 64, 64, 3), np.float32), "which is no picture"),
        (SimpleNamespace(frames=[1]), "gave no image, but SimpleNamespace"),
        (SimpleNamespace(images=[]), "gave no image"),
        (images(np.zeros((64, 64, 3)), nsfw_content_detected=[True]), "safety checker withheld.*safety_checker=None"),
    ],
)
def test_a_picture_that_is_none_is_a_failure_with_its_reason(
    given: Any, says: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EditFailedError, match=says):
        edited(given, folders, monkeypatch)


def test_a_source_is_shown_at_the_configuration_s_resolution_in_its_own_aspect(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub(np.zeros((48, 96, 3), np.float32))
    monkeypatch.setattr(module, "_load", lambda reference, editor: stub)
    editor = ReferenceEditor(Reference.open(str(folders / INPAINT.name), Options()), EDITOR)
    found = editor.edit(task(height=100, width=200, columns=slice(50)), 0)
    assert found.pixels.shape == (48, 96, 3)
    assert (stub.called["height"], stub.called["width"]) == (48, 96)
    assert stub.called["image"].size == stub.called["mask_image"].size == (96, 48)
    assert np.asarray(stub.called["mask_image"])[0, :24].tolist() == [255] * 24
    assert not np.asarray(stub.called["mask_image"])[:, 24:].any()
    assert np.array_equal(np.asarray(stub.called["image"]).shape, (48, 96, 3))


def test_the_packaged_editor_can_stand_beside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Reference.open("pocket", Options(steps=STEPS))
    edit = ReferenceEditor(reference, EDITOR).edit(task(), 0)
    assert not edit.resized
    assert not np.array_equal(edit.pixels, decode_rgb(task().source))
    stub = Stub(np.zeros((64, 64, 3), np.float32))
    monkeypatch.setattr(module, "_load", lambda reference, editor: stub)
    ReferenceEditor(reference, EDITOR).edit(task(), 0)
    assert (stub.called["max_area"], stub.called["_auto_resize"]) == (64 * 64, False)
