"""CLIP and LPIPS as they are really called, with random weights: real classes, nothing downloaded."""

import shutil

import numpy as np
import pytest
import torch
import torchvision
from torchmetrics.functional.image import lpips as torchmetrics_lpips
from transformers import CLIPModel, CLIPProcessor

from deploy.evaluating.compbench_actor import available
from rc_grpo.evaluation.clip import Clip, ClipUnavailableError
from rc_grpo.evaluation.compbench.measuring import MeasureSettings
from rc_grpo.evaluation.lpips import Lpips, LpipsUnavailableError

CROPS = [
    np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8) for seed, h, w in ((0, 40, 9), (1, 3, 3))
]


def unit(features):
    return (features / features.norm(dim=-1, keepdim=True)).detach().double().numpy()


def test_image_features_are_clips_projected_and_of_unit_length(clip_folder):
    from PIL import Image

    model, processor = CLIPModel.from_pretrained(clip_folder), CLIPProcessor.from_pretrained(clip_folder)
    found = Clip.load(str(clip_folder)).images(CROPS)
    for crop, features in zip(CROPS, found, strict=True):
        pixels = processor.image_processor(Image.fromarray(crop), return_tensors="pt")["pixel_values"]
        expected = unit(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))[0]
        np.testing.assert_allclose(features, expected, atol=1e-6)
        assert np.linalg.norm(features) == pytest.approx(1)


def test_text_features_do_not_depend_on_the_captions_beside_them(clip_folder):
    model, processor = CLIPModel.from_pretrained(clip_folder), CLIPProcessor.from_pretrained(clip_folder)
    captions = ["a cat", "the background without the sunflower", " "]
    for caption, features in zip(captions, Clip.load(str(clip_folder)).texts(captions), strict=True):
        ids = processor.tokenizer(caption, return_tensors="pt")["input_ids"]
        expected = unit(model.text_projection(model.text_model(input_ids=ids).pooler_output))[0]
        np.testing.assert_allclose(features, expected, atol=1e-5)


def test_a_caption_beyond_the_models_length_is_cut_off(clip_folder):
    assert np.isfinite(Clip.load(str(clip_folder)).texts(["cat " * 300])).all()


def test_a_missing_clip_names_the_ways_out(tmp_path):
    with pytest.raises(ClipUnavailableError, match=r"no CLIP model .*nowhere.*--clip FOLDER.*--clip none"):
        available(MeasureSettings(clip=str(tmp_path / "nowhere")))


def test_pickled_weights_of_a_clip_are_not_read(clip_folder, tmp_path):
    pickled = tmp_path / "pickled"
    shutil.copytree(clip_folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(CLIPModel.from_pretrained(clip_folder).state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(ClipUnavailableError, match="safetensors"):
        Clip.load(str(pickled))


def test_lpips_is_torchmetrics_squeeze_between_minus_1_and_1(monkeypatch):
    """The backbone is random here, as its weights want a network; the linear heads are torchmetrics' own."""

    def random_backbone(net: str, pretrained: bool = False) -> torch.nn.Module:
        torch.manual_seed(0)
        return getattr(torchvision.models, net)(weights=None).features

    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", random_backbone)
    lpips = Lpips.load()
    one, other = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert lpips(one, one) == 0
    net = torchmetrics_lpips._NoTrainLpips(net="squeeze")
    assert lpips(one, other) == pytest.approx(float(net(one * 2 - 1, other * 2 - 1).squeeze()), rel=1e-4)
    assert lpips(one, other) > 0


def test_without_weights_or_network_one_sentence_says_that_lpips_is_left_out(monkeypatch, tmp_path):
    from urllib.error import URLError

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(
        LpipsUnavailableError, match=r"LPIPS is left out: .*weights.*no network.*squeezenet1_1"
    ) as caught:
        Lpips.load()
    assert "\n" not in str(caught.value)


def test_without_torchvision_one_sentence_says_that_lpips_is_left_out(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(LpipsUnavailableError, match="LPIPS is left out: torchvision") as caught:
        Lpips.load()
    assert "\n" not in str(caught.value)
