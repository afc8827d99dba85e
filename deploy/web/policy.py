"""Naming, in a content security policy, the one script or style that may run."""

import base64
import hashlib


def digest(text: str) -> str:
    """Return how a policy names an inline script or style by what it holds, such as ``sha256-...``."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
