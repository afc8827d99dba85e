"""Stand-ins for packages that a rival imports and that what is measured of it does not need."""

import importlib.machinery
import sys
from types import ModuleType
from typing import Any


def stand_in(name: str, **attributes: Any) -> str:
    """Put an empty module with these attributes in a package's place, installed or not; return its name.

    Args:
        name: dotted; what is above it stands in, too.
        attributes: of the module.
    """
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    vars(module).update(attributes)
    parent, _, child = name.rpartition(".")
    if parent:
        if parent not in sys.modules:
            stand_in(parent)
        setattr(sys.modules[parent], child, module)
    sys.modules[name] = module
    return name
