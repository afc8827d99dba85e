"""Qwen-Image-2.1, as an editor: one stream in which text and source never see the image that is made."""

from types import MappingProxyType

from rc_grpo.config.editor import MOST_SOURCES
from rc_grpo.editor.family import Guidance
from rc_grpo.editor.stock.family import StockFamily
from rc_grpo.editor.stock.source_size import STOCK_SOURCE


class QwenImage21(StockFamily):
    """The `rc_grpo.editor.family.Family` of ``QwenImage21Pipeline``."""

    name = "qwen-image-21"
    models = frozenset({"full-size-qwen-image-21"})
    hub_ids = MappingProxyType({"Qwen/Qwen-Image-2.1": "full-size-qwen-image-21"})
    pipeline = "QwenImage21Pipeline"
    transformer = "QwenImage21Transformer2DModel"
    guidance: Guidance = "cfg"
    sources = MOST_SOURCES
    source_resolution = STOCK_SOURCE


FAMILY = QwenImage21()
