"""FLUX.2 klein: the base models for training, the distilled ones to roll out and evaluate, and a pocket editor."""

from types import MappingProxyType

from rc_grpo.config.editor import MOST_SOURCES
from rc_grpo.editor.families.flux2_klein.names import FIRST_NAMES
from rc_grpo.editor.family import Guidance
from rc_grpo.editor.stock.family import StockFamily


class Flux2Klein(StockFamily):
    """The `rc_grpo.editor.family.Family` of ``Flux2KleinPipeline``."""

    name = "flux2-klein"
    models = frozenset({"pocket-klein", "full-size-klein-4b", "full-size-klein-9b"})
    hub_ids = MappingProxyType(
        {
            "black-forest-labs/FLUX.2-klein-base-4B": "full-size-klein-4b",
            "black-forest-labs/FLUX.2-klein-base-9B": "full-size-klein-9b",
            "black-forest-labs/FLUX.2-klein-4B": "full-size-klein-4b",
            "black-forest-labs/FLUX.2-klein-9B": "full-size-klein-9b",
        }
    )
    pipeline = "Flux2KleinPipeline"
    transformer = "Flux2Transformer2DModel"
    first_names = FIRST_NAMES
    guidance: Guidance = "cfg"
    sources = MOST_SOURCES


FAMILY = Flux2Klein()
