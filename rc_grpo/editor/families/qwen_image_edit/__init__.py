"""Qwen-Image-Edit 2511 and 2509, and whatever loads as they do, such as FireRed-Image-Edit."""

from types import MappingProxyType

from rc_grpo.config.editor import MOST_SOURCES
from rc_grpo.editor.families.qwen_image_edit.names import FIRST_NAMES
from rc_grpo.editor.family import Guidance
from rc_grpo.editor.stock.family import StockFamily
from rc_grpo.editor.stock.source_size import STOCK_SOURCE


class QwenImageEdit(StockFamily):
    """The `rc_grpo.editor.family.Family` of ``QwenImageEditPlusPipeline``."""

    name = "qwen-image-edit"
    models = frozenset({"full-size-qwen-image-edit"})
    hub_ids = MappingProxyType(
        {
            "Qwen/Qwen-Image-Edit-2511": "full-size-qwen-image-edit",
            "Qwen/Qwen-Image-Edit-2509": "full-size-qwen-image-edit",
        }
    )
    pipeline = "QwenImageEditPlusPipeline"
    transformer = "QwenImageTransformer2DModel"
    first_names = FIRST_NAMES
    guidance: Guidance = "cfg"
    sources = MOST_SOURCES
    source_resolution = STOCK_SOURCE


FAMILY = QwenImageEdit()
