"""Background metrics of any edit task: how well an edit kept what it was not asked to change."""

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from rc_grpo.editor.geometry import binary_mask, resize_image
from rc_grpo.evaluation.compbench.frames import SIDE
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.messages import EditTask


def background_metrics(task: EditTask, edited: Pixels, device: torch.device | str = "cpu") -> dict[str, float]:
    """Return PSNR (dB) and SSIM of an edit's background against the source's.

    In the manner of CompBench, but not its numbers: images are resized as everywhere here (Lanczos), and masks are
    binarised. The benchmark's own are in `rc_grpo.evaluation.compbench.official`.

    Both images are multiplied by ``1 - mask`` and compared over the full frame; the masked part counts as identical, so
    the numbers grow with the mask and compare only between edits of the same tasks. An identical background gives
    infinite PSNR.

    Args:
        task: with source and mask.
        edited: ``[h, w, 3]`` uint8.
        device: computes SSIM, which is 0.2 s on a CPU core.
    """
    inside = binary_mask(task.mask)
    mask = torch.nn.functional.interpolate(torch.from_numpy(inside)[None, None].float(), (SIDE, SIDE), mode="nearest")
    source, result = ((_planes(image) * (1 - mask)).to(device) for image in (decode_rgb(task.source), edited))
    psnr = peak_signal_noise_ratio(result, source, data_range=1.0)
    ssim = structural_similarity_index_measure(result, source, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return {"background/psnr": float(psnr), "background/ssim": float(ssim)}


def _planes(image: Pixels) -> Tensor:
    return torch.from_numpy(resize_image(image, SIDE, SIDE).copy()).permute(2, 0, 1)[None].float() / 255
