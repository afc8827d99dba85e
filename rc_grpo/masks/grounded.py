"""What the instruction names, found by GroundingDINO and cut out by SAM 2, both as transformers has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rc_grpo.editor.files import pinned, reach_the_hub
from rc_grpo.editor.weights.pretrained import load_model
from rc_grpo.images import Pixels
from rc_grpo.masks.making import Example, Made, Method, NoMaskError
from rc_grpo.masks.phrase import Phrases, phrases_of
from rc_grpo.masks.shaping import Shape, to_size


class DetectorNotFoundError(ValueError):
    """A model that masks are made by cannot be loaded."""


@dataclass(frozen=True)
class Found:
    """What a detector found of a phrase.

    Attributes:
        boxes: ``[n, 4]``: left, top, right, bottom in pixels, the best first.
        scores: ``[n]``, 0 to 1.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class _Loaded:
    """A model that is ready.

    Attributes:
        model: of transformers.
        processor: its own.
        device: where it is.
    """

    model: Any
    processor: Any
    device: torch.device


class Detector(_Loaded):
    """GroundingDINO (``GroundingDinoForObjectDetection``): boxes of a phrase."""

    @torch.no_grad()
    def find(self, image: Pixels, phrase: str, threshold: float) -> Found:
        """Return the boxes of a phrase that score above a threshold, in an RGB image ``[H, W, 3]`` uint8."""
        # It was trained on phrases in lower case that end in a full stop.
        text = f"{phrase.lower().rstrip('. ')}."
        inputs = self.processor(images=Image.fromarray(image), text=text, return_tensors="pt").to(self.device)
        outputs = self.model(**inputs)
        (found,) = self.processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, threshold=threshold, text_threshold=threshold, target_sizes=[image.shape[:2]]
        )
        order = found["scores"].argsort(descending=True)
        boxes, scores = (found[name][order].float().cpu().numpy() for name in ("boxes", "scores"))
        limits = np.array([image.shape[1], image.shape[0]] * 2, dtype=np.float32)
        return Found(np.clip(boxes, 0.0, limits), scores)


class Segmenter(_Loaded):
    """SAM 2 (``Sam2Model``): what a box holds."""

    @torch.no_grad()
    def cut(self, image: Pixels, boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return the region ``[H, W]`` of all that the boxes ``[n, 4]`` hold together."""
        inputs = self.processor(images=Image.fromarray(image), input_boxes=[boxes.tolist()], return_tensors="pt").to(
            self.device
        )
        outputs = self.model(**inputs, multimask_output=False)
        (masks,) = self.processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"].cpu())
        region = masks.reshape(-1, *masks.shape[-2:]).any(dim=0).numpy()
        return np.asarray(to_size(region, *image.shape[:2]))


@dataclass(frozen=True)
class Grounded:
    """Makes a mask of what the instruction names: in the source what goes or changes, in the target what comes.

    Attributes:
        detector: of boxes.
        segmenter: of what is in them.
        models: names and revisions of both, which are kept.
        threshold: score below which a box is none.
        near: boxes below this share of the best one's score are dropped.
        shape: how the region is tidied.
    """

    detector: Detector
    segmenter: Segmenter
    models: Mapping[str, str]
    threshold: float = 0.3
    near: float = 0.8
    shape: Shape = field(default_factory=Shape)
    method: ClassVar[Method] = "grounded"
    parallel: ClassVar[bool] = False

    @classmethod
    def load(cls, detector: str, segmenter: str, shape: Shape | None = None) -> "Grounded":
        """Load both models, on CUDA where there is one.

        Args:
            detector: folder or hub id of a GroundingDINO; ``@REVISION`` may follow a hub id.
            segmenter: likewise of a SAM 2.
            shape: how regions are tidied.

        Raises:
            DetectorNotFoundError: one is not there, is another model, or has no safetensors.
        """
        import transformers
        from transformers import AutoProcessor, GroundingDinoForObjectDetection, Sam2Model, Sam2Processor

        transformers.utils.logging.disable_progress_bar()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        finder = _load(detector, "--detector", GroundingDinoForObjectDetection, AutoProcessor)
        cutter = _load(segmenter, "--segmenter", Sam2Model, Sam2Processor)
        return cls(
            Detector(finder[0].to(device).eval(), finder[1], device),
            Segmenter(cutter[0].to(device).eval(), cutter[1], device),
            {"detector": detector, "segmenter": segmenter},
            shape=shape or Shape(),
        )

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `rc_grpo.masks.making.MaskMaker`."""
        return {**self.models, "threshold": self.threshold, "near": self.near, "shape": vars(self.shape)}

    def __call__(self, example: Example) -> Made:
        """See `rc_grpo.masks.making.MaskMaker`."""
        phrases = Phrases(old=example.phrase) if example.phrase else phrases_of(example.instruction)
        if phrases is None:
            raise NoMaskError(
                "no phrase", f"no rule says what {example.instruction[:60]!r} is about; name it in a column `phrase`"
            )
        source, target = example.pixels(), example.target_pixels()
        size = source.shape[:2]
        region, boxes = np.zeros(size, dtype=bool), []
        looked: list[tuple[str, str, Pixels | None]] = []
        if phrases.old is not None:
            looked.append(("source", phrases.old, source))
        if phrases.new is not None:
            looked.append(("target", phrases.new, target))
        for where, phrase, image in looked:
            if image is None:
                continue
            found = self._best(self.detector.find(image, phrase, self.threshold))
            if not len(found.boxes):
                continue
            region |= to_size(self.segmenter.cut(image, found.boxes), *size)
            boxes += [
                {"in": where, "phrase": phrase, "box": box, "score": score}
                for box, score in zip(_rounded(found.boxes), _rounded(found.scores), strict=True)
            ]
        if not region.any():
            named = " or ".join(f"{phrase!r} in the {where}" for where, phrase, _ in looked)
            raise NoMaskError("not found", f"no box of {named} scores above {self.threshold:g}")
        return Made(self.shape.of(region), {"boxes": boxes})

    def _best(self, found: Found) -> Found:
        if not len(found.scores):
            return found
        kept = found.scores >= self.near * found.scores[0]
        return Found(found.boxes[kept], found.scores[kept])


def _load(name: str, option: str, model: Any, processor: Any) -> tuple[Any, Any]:
    source, revision = pinned(name)
    chosen = {} if revision is None else {"revision": revision}
    try:
        reach_the_hub(source, revision, "config.json")
        loaded = load_model(model, source, trust_remote_code=False, **chosen)
        return loaded, processor.from_pretrained(source, trust_remote_code=False, **chosen)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DetectorNotFoundError(
            f"{option} {name} cannot be loaded as {model.__name__}: it must be a folder or hub id with config, "
            f"safetensors and processor of that model ({' '.join(str(error).split())[:300]})"
        ) from error


def _rounded(values: Sequence[Any] | NDArray[np.float32]) -> list[Any]:
    rounded: list[Any] = np.asarray(values, dtype=np.float64).round(3).tolist()
    return rounded
