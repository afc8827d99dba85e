"""Text of strangers, made fit to be kept: valid Unicode without control characters, of bounded length.

What a judge or a server says goes into Arrow, JSON, protobuf, a terminal and HTML. Python holds more than these do:
half a surrogate pair (JSON's escape of half an emoji) is no UTF-8, an escape sequence repaints a terminal.
"""

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_LINE_ENDS = re.compile("\r\n|[\u2028\u2029]")
# Controls but for tab and line feed; marks that turn the direction of what follows; two that XML does not know.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def storable(text: str, limit: int) -> str:
    """Return a text that every store and screen holds.

    What is unfit becomes U+FFFD, a character for a character; halves of a surrogate pair that meet become the character
    they stand for; line ends become line feeds. Doing it twice changes nothing.

    Args:
        text: whatever there is.
        limit: length in characters above which the text is cut; the cut one ends in an ellipsis and is as long.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    whole = cut.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNFIT.sub(REPLACEMENT, _LINE_ENDS.sub("\n", whole))


def last_line(error: BaseException) -> str:
    """Return how an error ends: a remote one's text is a whole traceback, whose end says what it was."""
    return (str(error).strip().splitlines() or [repr(error)])[-1]


def first_line(error: BaseException) -> str:
    """Return how an error of a library begins, which may go on for pages."""
    return (str(error).strip().splitlines() or [repr(error)])[0]


def one_line(text: str, limit: int) -> str:
    """Return `storable` text on one line, for a message: every run of white space is one space."""
    # Cut first: to find the words of a body of megabytes is to copy it, and a few would do.
    return storable(" ".join(storable(text, 4 * limit).split()), limit)
