"""FLUX.1 Kontext, and whatever has its classes: the packaged pocket editor, and the architecture at full size."""

from types import MappingProxyType

from rc_grpo.editor.families.flux_kontext.names import FIRST_NAMES
from rc_grpo.editor.family import Guidance
from rc_grpo.editor.files import FULL_SIZE, POCKET
from rc_grpo.editor.stock.family import StockFamily


class FluxKontext(StockFamily):
    """The `rc_grpo.editor.family.Family` of ``FluxKontextPipeline``."""

    name = "flux-kontext"
    models = frozenset({POCKET, FULL_SIZE})
    hub_ids = MappingProxyType({"black-forest-labs/FLUX.1-Kontext-dev": FULL_SIZE})
    pipeline = "FluxKontextPipeline"
    transformer = "FluxTransformer2DModel"
    first_names = FIRST_NAMES
    guidance: Guidance = "embedded"


FAMILY = FluxKontext()
