"""Other ways to ask what `astrea.world.scenes.templates` asks: for each template, some to learn from and some held out.

The twelve evaluated tasks keep the wordings of the templates; these are an option of the training data
(`data.paraphrases`), and those held out measure whether a model understands what it was never asked in training.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import NamedTuple

from astrea.world.scenes.phrases import with_article
from astrea.world.scenes.questions import Question


class Wordings(NamedTuple):
    """Ways to ask one thing, with `astrea.world.scenes.templates`' marks. held_out: never asked in training."""

    learned: tuple[str, ...]
    held_out: tuple[str, ...]

    def about(self, thing: str) -> Wordings:
        """The same with other words in the place of ``{0}``."""
        return Wordings(*(tuple(text.replace("{0}", thing) for text in group) for group in self))


_EXISTENCE = Wordings(
    (
        "is there {a0} in the picture?", "can you see {a0}?", "is {a0} visible?", "does the image contain {a0}?",
        "can you find {a0} here?", "is {a0} shown?", "does {a0} appear in the image?", "do you notice {a0}?",
        "is there {a0} anywhere?", "has the picture got {a0}?", "can {a0} be seen?", "tell me if there is {a0}.",
    ),
    (
        "could you check whether there is {a0}?", "does this photo include {a0}?", "is {a0} present in the picture?",
    ),
)  # fmt: skip
_COUNTING = Wordings(
    (
        "count the {0}.", "what is the number of {0}?", "how many {0} can you see?", "how many {0} are in the picture?",
        "how many {0} does the picture show?", "tell me how many {0} there are.", "number of {0}?", "how many {0}?",
        "please count the {0}.", "can you count the {0}?", "what number of {0} is shown?", "how many {0} are visible?",
    ),
    (
        "how many {0} can be found here?", "could you count all the {0} in this image?", "give me the number of {0}.",
    ),
)  # fmt: skip
_COLOUR = Wordings(
    (
        "what is the colour of the {0}?", "tell me the colour of the {0}.", "the {0} is what colour?",
        "which colour is the {0}?", "what colour does the {0} have?", "what colour is that {0}?",
        "in which colour is the {0} drawn?", "the colour of the {0}?", "can you tell the colour of the {0}?",
        "what colour has the {0}?", "please name the colour of the {0}.", "how is the {0} coloured?",
    ),
    (
        "could you tell me what colour the {0} is?", "of which colour is the {0}?", "name the colour that the {0} has.",
    ),
)  # fmt: skip

PARAPHRASES: dict[str, Wordings] = {
    "existence.pair": _EXISTENCE,
    "existence.kind": _EXISTENCE,
    "existence.category": _EXISTENCE,
    "counting.kind": _COUNTING,
    "counting.colour": _COUNTING.about("{0} things"),
    "counting.category": _COUNTING,
    "counting.all": Wordings(
        (
            "count the things.", "how many objects are there?", "what is the total number of things?",
            "how many things are in the picture?", "how many objects can you see?", "count everything.",
            "tell me how many things there are.", "how many things are shown?", "number of objects?",
            "please count all objects.", "how many things does the image show?", "how many objects are visible?",
        ),
        (
            "how many objects does this picture contain?", "what is the number of things in the image?",
            "could you count the objects?",
        ),
    ),
    "attribute.colour": _COLOUR,
    "attribute.kind": Wordings(
        (
            "which object is {0}?", "what thing is {0}?", "what is {0} here?", "name the {0} thing.",
            "what is the {0} object?", "which thing has the colour {0}?", "tell me which thing is {0}.",
            "what object is {0}?", "which of the things is {0}?", "the {0} thing is what?", "what do you see in {0}?",
            "which thing is coloured {0}?",
        ),
        (
            "can you tell me what the {0} object is?", "which object has the colour {0}?", "what is the thing in {0}?",
        ),
    ),
    "attribute.size": Wordings(
        (
            "what is the size of the {0}?", "which size does the {0} have?", "how large is the {0}?",
            "is the {0} small, medium or large?", "tell me the size of the {0}.", "the {0} is of what size?",
            "what size does the {0} have?", "the size of the {0}?", "is the {0} large, medium or small?",
            "how big does the {0} look?", "which size is the {0}?", "please name the size of the {0}.",
        ),
        (
            "could you tell me how big the {0} is?", "how large does the {0} look?", "of what size is the {0}?",
        ),
    ),
    "spatial.side": Wordings(
        (
            "can you see the {0} {1} the {2}?", "is the {0} located {1} the {2}?", "is the {0} placed {1} the {2}?",
            "do you see the {0} {1} the {2}?", "does the {0} stand {1} the {2}?", "tell me if the {0} is {1} the {2}.",
            "is it true that the {0} is {1} the {2}?", "the {0} is {1} the {2}, is it?",
            "is the {0} found {1} the {2}?", "would you say the {0} is {1} the {2}?",
            "does the picture show the {0} {1} the {2}?", "is the {0} shown {1} the {2}?",
        ),
        (
            "could you check whether the {0} is {1} the {2}?", "can the {0} be seen {1} the {2}?",
            "is it so that the {0} lies {1} the {2}?",
        ),
    ),
    "spatial.where": Wordings(
        (
            "where is the {0} relative to the {1}?", "on which side of the {1} is the {0}?",
            "in which direction from the {1} is the {0}?", "where does the {0} lie compared to the {1}?",
            "where is the {0} with respect to the {1}?", "tell me where the {0} is compared to the {1}.",
            "compared to the {1}, where is the {0}?", "seen from the {1}, where is the {0}?",
            "where do you see the {0} from the {1}?", "on what side of the {1} is the {0}?",
            "which way from the {1} is the {0}?", "the {0} is on which side of the {1}?",
        ),
        (
            "relative to the {1}, where is the {0}?", "on which side of the {1} does the {0} lie?",
            "could you tell me where the {0} is, seen from the {1}?",
        ),
    ),
    "spatial.extreme": Wordings(
        (
            "which object is {0}?", "tell me what is {0}.", "what thing is {0}?", "what object is {0}?",
            "name the thing that is {0}.", "which of the things is {0}?", "what is placed {0}?",
            "which thing is shown {0}?", "what do you see {0}?", "what is {0} in the picture?",
            "which thing lies {0}?", "what is {0} here?",
        ),
        (
            "can you tell me which object is {0}?", "what thing lies {0}?", "which object is located {0}?",
        ),
    ),
    "logic.both": Wordings(
        (
            "are {a0} and {a1} both there?", "is there both {a0} and {a1}?", "can you see {a0} and {a1}?",
            "does the picture show both {a0} and {a1}?", "are there {a0} and {a1}?", "do you see {a0} and also {a1}?",
            "does the image contain {a0} and {a1}?", "are {a0} and {a1} visible?", "is there {a0} as well as {a1}?",
            "can you find both {a0} and {a1}?", "are {a0} and {a1} both shown?",
            "tell me if there are both {a0} and {a1}.",
        ),
        (
            "does the image contain both {a0} and {a1}?", "can both {a0} and {a1} be seen?",
            "are both {a0} and {a1} in the picture?",
        ),
    ),
    "logic.either": Wordings(
        (
            "is there either {a0} or {a1}?", "can you see {a0} or {a1}?", "does the picture show {a0} or {a1}?",
            "does the image contain {a0} or {a1}?", "is {a0} or {a1} visible?", "do you see either {a0} or {a1}?",
            "can you find {a0} or {a1}?", "is {a0} or {a1} there?", "does {a0} or {a1} appear?",
            "tell me if there is {a0} or {a1}.", "is {a0} or {a1} shown?", "do you notice {a0} or {a1}?",
        ),
        (
            "does this image contain either {a0} or {a1}?", "can {a0} or {a1} be seen?",
            "could you find either {a0} or {a1} here?",
        ),
    ),
    "logic.more": Wordings(
        (
            "are there more {0} than there are {1}?", "can you see more {0} than {1}?",
            "does the picture show more {0} than {1}?", "is the number of {0} larger than that of {1}?",
            "do the {0} outnumber the {1}?", "are more {0} than {1} visible?", "are the {0} more than the {1}?",
            "does the image contain more {0} than {1}?", "tell me if there are more {0} than {1}.",
            "are more {0} than {1} shown?", "compared to {1}, are there more {0}?", "do more {0} than {1} appear?",
        ),
        (
            "is the number of {0} larger than the number of {1}?", "can you find more {0} than {1}?",
            "would you say there are more {0} than {1}?",
        ),
    ),
    "logic.same": Wordings(
        (
            "do the {0} and the {1} share the same colour?", "is the {0} the same colour as the {1}?",
            "does the {0} have the same colour as the {1}?", "are the {0} and the {1} of the same colour?",
            "are the {0} and the {1} alike in colour?", "is the colour of the {0} the same as that of the {1}?",
            "do the {0} and the {1} match in colour?", "are both the {0} and the {1} of one colour?",
            "have the {0} and the {1} got the same colour?", "tell me if the {0} and the {1} have the same colour.",
            "is the {0} coloured like the {1}?", "do {0} and {1} have the same colour?",
        ),
        (
            "are the {0} and the {1} coloured alike?", "is the colour of the {0} that of the {1}?",
            "does the {0} share its colour with the {1}?",
        ),
    ),
    "logic.every": Wordings(
        (
            "are all {0}s {1}?", "is every single {0} {1}?", "does every {0} have the colour {1}?",
            "is each of the {0}s {1}?", "are the {0}s all {1}?", "tell me if every {0} is {1}.",
            "is it true that every {0} is {1}?", "does each {0} have the colour {1}?",
            "is the colour of every {0} {1}?", "do you see only {1} {0}s?", "are all of the {0}s {1}?",
            "would you say every {0} is {1}?",
        ),
        (
            "do all {0}s have the colour {1}?", "is each {0} shown in {1}?",
            "could you check whether every {0} is {1}?",
        ),
    ),
    "reading.word": Wordings(
        (
            "what is the printed word?", "which word is printed?", "what does the sign say?", "which word is shown?",
            "read the word.", "what can you read?", "what is written?", "what word can you read?",
            "tell me the printed word.", "what is written on the plate?", "which word is on the sign?",
            "what text do you see?",
        ),
        (
            "what word is written in the picture?", "can you read the word?", "which word does the sign show?",
        ),
    ),
    "reading.letter": Wordings(
        (
            "what letter does the word start with?", "with which letter does the word start?",
            "which letter comes first in the word?", "what letter starts the word?",
            "the word starts with which letter?", "tell me the first letter of the word.",
            "name the first letter of the printed word.", "what is the first letter of the printed word?",
            "which is the first letter of the word?", "with what letter does the printed word start?",
            "which letter starts the printed word?", "first letter of the word?",
        ),
        (
            "what letter comes first in the printed word?", "could you tell me the first letter of the word?",
            "with which letter does the text start?",
        ),
    ),
    "knowledge.exists": Wordings(
        (
            "can you see something that {0}?", "is there a thing that {0}?", "is there anything that {0}?",
            "does the picture show something that {0}?", "do you see a thing that {0}?",
            "does the image contain something that {0}?", "is something that {0} visible?",
            "can you find something that {0}?", "do you notice anything that {0}?", "is something shown that {0}?",
            "tell me if there is something that {0}.", "is there an object that {0}?",
        ),
        (
            "does the picture contain anything that {0}?", "can something that {0} be seen?",
            "do you find an object that {0}?",
        ),
    ),
    "knowledge.fact": _COLOUR.about("thing that {0}"),
    "knowledge.category": _COLOUR,
    "area.compare": Wordings(
        (
            "is the {0} larger than the {1}?", "does the {0} take up more of the picture than the {1}?",
            "does the {0} fill more of the image than the {1}?", "is the {0} bigger than the {1}?",
            "is more of the picture covered by the {0} than by the {1}?", "does the {0} take more space than the {1}?",
            "do you see more of the {0} than you see of the {1}?",
            "is the area of the {0} larger than that of the {1}?",
            "does the {0} cover a larger area than the {1}?", "compared to the {1}, does the {0} cover more?",
            "does the {0} look bigger than the {1}?", "tell me if the {0} covers more than the {1}.",
        ),
        (
            "does the {0} fill a larger area than the {1}?", "does the {0} take up more space than the {1}?",
            "is the {0} the bigger one, compared to the {1}?",
        ),
    ),
    "area.thing": Wordings(
        (
            "which object covers the most of the picture?", "what is the largest thing?",
            "which thing is the largest?", "what takes up the most of the picture?",
            "which thing fills the most of the image?", "what is the biggest thing?", "which object is the biggest?",
            "what thing covers the most?", "which thing takes the most space?", "name the largest thing.",
            "tell me which thing covers the most.", "what fills most of the picture?",
        ),
        (
            "which object takes up the most space?", "what is the largest object in the picture?",
            "could you tell me what covers the most of the image?",
        ),
    ),
    "area.colour": Wordings(
        (
            "which colour takes up the most of the picture?", "what is the most common colour?",
            "which colour fills the most of the image?", "what colour takes the most space?",
            "what colour covers most of the picture?", "which colour is seen the most?", "what is the main colour?",
            "which colour covers the largest area?", "tell me which colour covers the most.",
            "name the colour that covers the most.", "what colour fills the most of the picture?",
            "which colour do you see the most of?",
        ),
        (
            "which colour takes the most space?", "what colour covers the largest area of the image?",
            "could you tell me which colour fills most of the picture?",
        ),
    ),
}  # fmt: skip

SLIPS = 0.25
"""Share of rewordings with words that nobody knows, in places where they do not matter."""

HARMLESS = frozenset(
    {
        "a", "an", "the", "in", "is", "are", "do", "does", "can", "you", "see", "there", "here", "please", "tell", "me",
        "if", "picture", "image", "show", "shown", "visible", "find", "appear", "contain", "notice", "anywhere", "got",
        "has", "have", "would", "say", "it", "that", "of", "thing", "things", "object", "objects", "which", "what",
    }
)  # fmt: skip
"""Words of a question that may be lost, one or two at a time, without changing what it asks."""


def rendered(wording: str, args: tuple[str, ...]) -> str:
    """A wording with its arguments filled in."""
    articles = {f"a{i}": with_article(arg) for i, arg in enumerate(args)} if "{a" in wording else {}
    return wording.format(*args, **articles)


def reworded(question: Question, rng: random.Random, *, held_out: bool = False) -> Question:
    """The same question in other words; in those to learn from with a slip now and then, see `SLIPS`."""
    wordings = PARAPHRASES[question.template]
    wording = rng.choice(wordings.held_out if held_out else wordings.learned)
    if not held_out and rng.random() < SLIPS:
        wording = with_slip(wording, rng)
    return replace(question, text=rendered(wording, question.args))


def with_slip(wording: str, rng: random.Random) -> str:
    """The same with a word or two that are none: misspelt, in front of it, or behind it. What is asked stays clear."""
    words = wording.split()
    harmless = [place for place, word in enumerate(words) if word in HARMLESS]
    if rng.random() < 0.5 and len(harmless) > 2:
        for place in rng.sample(harmless, rng.choice((1, 1, 2))):
            words[place] = no_word(rng)
    else:
        words[:0] = [no_word(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    return " ".join(words)


def no_word(rng: random.Random) -> str:
    """Letters that sound like a word, such as "melofan"."""
    parts = [rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3))]
    return "".join(parts) + rng.choice(("", "n", "r", "t", "ck"))


def paraphrase_texts() -> list[str]:
    """Every wording to learn from, without its marks: where the words come from that a tokenizer has to know."""
    texts = [text for wordings in PARAPHRASES.values() for text in wordings.learned]
    marks = ("{a0}", "{a1}", "{0}s", "{0}", "{1}", "{2}")
    for mark in marks:
        texts = [text.replace(mark, " ") for text in texts]
    return list(dict.fromkeys(texts))
