"""What an instruction is about, in the few words that a detector takes: by rule, from what follows the verb.

Read are instructions in English that begin with what is to be done. What is not read so has no phrase, rather than a
wrong one: the data set can name it in a column ``phrase``.
"""

import re
from dataclasses import dataclass

_POLITE = re.compile(
    r"^(?:(?:please|kindly|now|then|next|first|just|let'?s|(?:can|could|would|will) you(?: please)?|i(?:'d| would)? "
    r"(?:want|like|need)(?: you)? to|you (?:should|must)|try to)[ ,]+)+",
    re.I,
)

_REMOVE = (
    r"remove|delete|erase|eliminate|get rid of|take away|take out|take off|wipe out|clear away|cut out|drop|discard"
)
_ADD = r"add|insert|place|put|draw|paint in|include|introduce|paste|set"
_REPLACE = r"replace|swap|substitute|exchange|switch"
_TURN = r"turn|transform|convert|change"
_MAKE = r"make|let|have"
_ALTER = (
    r"recolou?r|colou?r|paint|dye|brighten|darken|lighten|blur|sharpen|enlarge|shrink|resize|rotate|flip|move|relocate|"
    r"shift|crop|highlight|modify|adjust|alter|edit|fix|repair|clean|open|close|raise|lower|style|decorate|cover|fill"
)

_PLACE = (
    r"top|bottom|left|right|upper|lower|centre|center|middle|corner|side|front|back|background|foreground|image|"
    r"picture|photo|photograph|scene|frame|shot|view|distance"
)
_END = re.compile(
    r"[,.;:!?]| (?:so that|such that|while|without|by|using|located|situated|positioned|"
    rf"and (?:then |also )?(?:{_REMOVE}|{_ADD}|{_REPLACE}|{_TURN}|{_MAKE}|{_ALTER}|"
    r"keep|leave|restore|ensure|ensuring)|ensuring|seamlessly|please)\b"
    rf"| (?:from|in|on|at|to|into|of|near|along)(?: the| its| this)?(?: (?:far|very))?[ -](?:{_PLACE})\b",
    re.I,
)
_WITH = re.compile(r" (?:with|by|for|to|into) ", re.I)
_INTO = re.compile(r" (?:into|to|from|as|with) ", re.I)
_ON = re.compile(
    r" (?:on|onto|in|into|to|at|next to|beside|behind|under|below|above|over|near|between|around|inside|by|"
    r"in front of|on top of) ",
    re.I,
)
_OF = re.compile(
    r"^(?:the )?(?:colou?r|material|style|texture|pattern|size|shape|pose|position|expression|look|appearance) of ",
    re.I,
)
_ATTRIBUTE = re.compile(
    r"^(.*?)(?:'s|s') (?:colou?r|material|style|texture|pattern|size|shape|pose|expression|look)$", re.I
)
_CHANGED = re.compile(
    r"((?:the|this|that|his|her|their|its|all|both|an?) (?:[\w'-]+ ){0,4}?[\w'-]+?)"
    r"(?: (?:look|appear|be|become|into|seem|more|less|smaller|larger|bigger|brighter|darker|wear|hold|smile|stand|sit)"
    r"\b.*| [\w-]+)?$",
    re.I,
)
_COLOUR = re.compile(
    r"(?<=.) (?:(?:light|dark|bright|pale|deep) )?(?:red|green|blue|yellow|orange|purple|violet|pink|brown|black|white|"
    r"gr[ae]y|gold|golden|silver)[.!]?$",
    re.I,
)
_WHOLE = re.compile(rf"^(?:the |this |whole |entire )*(?:{_PLACE}|style|lighting|weather|season)s?$", re.I)
_LONGEST = 12
"""Words; what is longer is a description, in which a detector finds anything."""


@dataclass(frozen=True)
class Phrases:
    """What to look for.

    Attributes:
        old: in the source; None where nothing of it is edited.
        new: in the target, where it is what is edited: of something added, or put in another's place.
    """

    old: str | None = None
    new: str | None = None


def phrases_of(instruction: str) -> Phrases | None:
    """Return what an instruction is about, or None where no rule reads it."""
    said = _POLITE.sub("", " ".join(instruction.replace("’", "'").split()).strip("\"'“”‘ "))
    for verbs, read in _RULES:
        if match := re.match(rf"(?:{verbs})\b (?P<rest>.+)", said, re.I):
            return read(match["rest"])
    return None


def _removed(rest: str) -> Phrases | None:
    return _some(Phrases(old=_noun(rest)))


def _added(rest: str) -> Phrases | None:
    # What is added is not in the source; what it is added to is not edited.
    return _some(Phrases(new=_noun(_ON.split(rest, maxsplit=1)[0])))


def _replaced(rest: str) -> Phrases | None:
    old, *new = _WITH.split(rest, maxsplit=1)
    of_new = _noun(new[0]) if new else None
    # "a green one" is what was there, in green.
    return _some(Phrases(_noun(old), None if of_new is None or of_new.endswith((" one", " ones")) else of_new))


def _turned(rest: str) -> Phrases | None:
    old, *new = _INTO.split(rest, maxsplit=1)
    found = _noun(old)
    if found is None:
        # Of the whole picture, or its background: nothing to look for.
        return None
    if (bare := _attribute(found)) is not None:
        return _some(Phrases(old=bare))
    of_new = _noun(new[0]) if new else None
    # "to blue" names no thing that could be looked for; what becomes another thing is named with an article.
    named = of_new is not None and re.match(r"(?:an?|the|some|two|three|several) ", of_new, re.I) is not None
    return _some(Phrases(found, of_new if named else None))


def _made(rest: str) -> Phrases | None:
    match = _CHANGED.match(_END.split(rest, maxsplit=1)[0])
    return None if match is None else _some(Phrases(old=_noun(match[1])))


def _altered(rest: str) -> Phrases | None:
    found = _noun(_COLOUR.sub("", _INTO.split(rest, maxsplit=1)[0]))
    return None if found is None else _some(Phrases(old=_attribute(found) or found))


def _attribute(found: str) -> str | None:
    """Return whose attribute a phrase names, such as a colour's; None where it names none."""
    if _OF.match(found):
        return _OF.sub("", found)
    match = _ATTRIBUTE.match(found)
    return None if match is None else match[1]


def _noun(text: str) -> str | None:
    found = _END.split(f"{text} ", maxsplit=1)[0].strip(" \"'“”‘’")
    if not found or _WHOLE.match(found) or len(found.split()) > _LONGEST:
        return None
    return found.lower()


def _some(found: Phrases) -> Phrases | None:
    return found if found.old or found.new else None


_RULES = (
    (_REMOVE, _removed),
    (_REPLACE, _replaced),
    (_ADD, _added),
    (_TURN, _turned),
    (_MAKE, _made),
    (_ALTER, _altered),
)
