"""At which size Qwen-Image-Edit's text encoder looks at a source."""

SEEN_BY_TEXT_ENCODER = 384
"""Side of the square whose area the vision-language encoder sees it at."""
