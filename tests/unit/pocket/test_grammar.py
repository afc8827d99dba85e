import random
import re
from itertools import product

import pytest

from rc_grpo.pocket.grammar import TEMPLATES, Manner, article, phrases, say, vocabulary
from rc_grpo.pocket.objects import PLACES, SIZES, SPRITES, Placed
from rc_grpo.pocket.tokenizers import clip_tokenizer, learn_merges, t5_tokenizer
from rc_grpo.pocket.world import PocketWorld

BARE = Manner(sized=False, placed=False, whole=None, corner=False, please=None, lower=False, stop=False)
CAT, SMALL_DOG = Placed("cat", "large", "top left"), Placed("dog", "small", "top left")
TYPED = [
    "Add a cat in the top left",
    "Add a large cat in the top left",
    "add a small apple to the center of the picture",
    "put an umbrella on the bottom right of the image.",
    "Please insert a star into the top right corner",
    "draw a frog on the center left please",
    "Remove the cat",
    "please delete the dog from the picture",
    "Get rid of the small key in the bottom center.",
    "erase the hat",
    "Replace the cat with a dog",
    "swap the apple for an umbrella please",
    "Turn the pizza in the center of the image into a balloon.",
    "change the large tree to a mushroom",
]
PLANS = [PocketWorld("train", 3000, seed=9).plan(index) for index in range(3000)]


def words(text: str) -> list[str]:
    return text.lower().rstrip(".").split()


def generic(text: str) -> str:
    """Return a sentence without what it is about."""
    text = text.lower().rstrip(".")
    for name in SPRITES:
        text = re.sub(rf"\b{name}\b", "thing", text)
    for place in sorted(PLACES, key=len, reverse=True):
        text = re.sub(rf"\b{place}\b", "place", text)
    return re.sub(r"\b(a|an) ", "a ", re.sub(r"\b(small|large) ", "sized ", re.sub("image|picture", "whole", text)))


def sentences() -> set[str]:
    """Return every sentence of the grammar, without what it is about."""
    found = set()
    for kind, templates in TEMPLATES.items():
        wholes, ends = (None, "picture"), (None, "first", "last")
        for template, size, *said in product(templates, SIZES, (0, 1), (0, 1), wholes, (0, 1), ends):
            placed, manner = Placed("cat", size, "top left"), Manner(*said, lower=True, stop=False)  # type: ignore[arg-type]
            old, new = None if kind == "add" else placed, None if kind == "remove" else placed
            found.add(generic(say(template, manner, old, new)))
    return found


SENTENCES = sentences()


@pytest.mark.parametrize("text", TYPED)
def test_what_people_type_is_a_sentence_of_the_world(text: str) -> None:
    assert generic(text) in SENTENCES


def test_the_world_draws_sentences_of_all_lengths() -> None:
    drawn = {generic(plan.instruction) for plan in PLANS}
    assert drawn <= SENTENCES
    assert {len(words(text)) for text in drawn} == {len(words(text)) for text in SENTENCES}


def test_an_added_object_without_a_size_is_large() -> None:
    unsized = 0
    for plan in PLANS:
        if plan.kind == "add":
            assert plan.new is not None
            said = [size for size in SIZES if size in words(plan.instruction)]
            assert said in ([], [plan.new.size])
            assert said or plan.new.size == "large"
            unsized += not said
    assert unsized > 200


def test_every_instruction_fixes_what_it_asks_for() -> None:
    for plan in PLANS:
        said = words(plan.instruction)
        named = [name for name in SPRITES if name in said]
        assert sorted(named) == sorted(placed.name for placed in plan.edited)
        places = [place for place in PLACES if re.search(rf"\bthe {place}\b", plan.instruction.lower())]
        if places:
            assert max(places, key=len) == plan.edited[0].place
        else:
            assert plan.kind != "add"
        for size in set(SIZES) & set(said):
            assert plan.edited[0].size == size


def test_a_sentence_is_said_as_its_manner_asks() -> None:
    assert say("Add {article} {new} in the {place}", BARE, None, CAT) == "Add a cat in the top left"
    assert say("Add {article} {new} in the {place}", BARE, None, SMALL_DOG) == "Add a small dog in the top left"
    assert say("Remove the {old}", BARE, SMALL_DOG, None) == "Remove the dog"
    fuller = Manner(sized=True, placed=True, whole="image", corner=True, please="first", lower=False, stop=True)
    assert say("Remove the {old}", fuller, CAT, None) == "Please remove the large cat in the top left of the image."
    corner = Manner(sized=False, placed=True, whole=None, corner=True, please="last", lower=True, stop=False)
    template = "Turn the {old} into {article} {new}"
    apple = Placed("apple", "large", "top left")
    assert say(template, corner, CAT, apple) == "turn the cat in the top left corner into an apple please"


def test_only_corners_are_called_corners() -> None:
    for plan in PLANS:
        if "corner" in words(plan.instruction):
            assert plan.edited[0].place in {"top left", "top right", "bottom left", "bottom right"}


def test_articles_agree_with_the_word_that_follows() -> None:
    for plan in PLANS:
        for found, following in re.findall(r"\b(an?) (\w+)", plan.instruction.lower()):
            assert found == ("an" if following[0] in "aeiou" else "a")
    assert article("small umbrella") == "a"


def test_phrases_are_few_and_none_is_shorter_than_a_task_of_the_world() -> None:
    found = list(phrases())
    assert len(found) <= 5000
    assert max(len(words(plan.instruction)) for plan in PLANS) == max(len(words(phrase)) for phrase in found)


def test_the_vocabulary_is_the_words_of_the_world() -> None:
    assert {word for plan in PLANS for word in words(plan.instruction)} == set(vocabulary())


def test_every_template_is_used() -> None:
    rng = random.Random(0)
    manners = [Manner.draw(rng) for _ in range(2000)]
    assert {manner.please for manner in manners} == {None, "first", "last"}
    assert {manner.whole for manner in manners} == {None, "picture", "image"}
    starts = {words(plan.instruction.lower().removeprefix("please "))[0] for plan in PLANS}
    assert starts == {words(template)[0] for templates in TEMPLATES.values() for template in templates}


def test_both_tokenizers_know_every_word_and_are_the_same_at_every_build() -> None:
    texts = [plan.instruction for plan in PLANS[:300]]
    for build in (clip_tokenizer, t5_tokenizer):
        one, other = build(), build()
        assert one(texts).input_ids == other(texts).input_ids
        ends = 2 if build is clip_tokenizer else 1
        lengths = [len(text.replace(".", " .").split()) + ends for text in texts]
        assert [len(ids) for ids in one(texts).input_ids] == lengths


def test_learned_merges_make_each_word_one_piece_in_any_order() -> None:
    merges = learn_merges([*word] for word in ("place", "replace", "lace"))
    assert merges == learn_merges([*word] for word in ("lace", "place", "replace"))
    assert {"".join(pair) for pair in merges} >= {"place", "replace", "lace"}
