"""How experts declare phrases, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astrea.common.errors import AstreaError
from astrea.experts.bank import expert_class
from astrea.experts.phrases import Slot, has_features, read_phrases, said_beside
from astrea.experts.pretrained.slots import PLACED, box_labels, placed_slots, region_labels, with_slots
from astrea.experts.protocol import Expert, ExpertFeatures

FEATURE, THING = Slot("feature", 0, 3, "feature"), Slot("thing", 3, 5, "words")
VERTICAL, TEXT = Slot("vertical", 5, 7, "words"), Slot("text", 7, 9, "text")


class Seer(Expert):
    """Two ways of knowing, and text."""

    num_tokens = 2
    width = 9
    labels = (None, None, None, "cat", "dog", "top", "bottom", None, None)
    slots = {"feature": (0, 3), "thing": (3, 5), "vertical": (5, 7), "text": (7, 9)}
    phrases = ("{feature} {vertical} ;", 'a {thing} says "{text}"')

    def forward(self, pixels_B3HW):
        return ExpertFeatures(pixels_B3HW.new_zeros(len(pixels_B3HW), 2, 9), pixels_B3HW.new_ones(len(pixels_B3HW), 2))

    def readings(self, pixels_B3HW):
        return []


class Outside(Seer):
    slots = {**Seer.slots, "thing": (3, 10)}


def test_a_phrase_is_words_and_slots():
    first, second = read_phrases("seer", Seer)
    assert first == (FEATURE, VERTICAL, " ;")
    assert second == ("a ", THING, ' says "', TEXT, '"')
    assert has_features(first)
    assert not has_features(second)


def test_what_a_phrase_says_beside_its_feature():
    assert said_beside("seer", Seer) == {"top", "bottom"}


def test_an_expert_need_not_declare_any():
    class Plain(Seer):
        slots = {}
        phrases = ()

    assert read_phrases("plain", Plain) == ()


def test_channels_without_a_name_among_others_weigh_nothing():
    class Gaps(Seer):
        slots = {"thing": (2, 5)}
        phrases = ("{thing}",)

    assert read_phrases("gaps", Gaps) == ((Slot("thing", 2, 5, "words"),),)


def test_a_brace_can_be_written():
    class Braces(Seer):
        phrases = ("{{{thing}}}",)

    assert read_phrases("seer", Braces) == (("{", THING, "}"),)


@pytest.mark.parametrize(
    ("slots", "phrases", "said"),
    [
        ({"thing": (3, 10)}, (), "slot 'thing' is (3, 10), and there are 9 channels"),
        ({"thing": (-1, 2)}, (), "slot 'thing' is (-1, 2), and there are 9 channels"),
        ({"thing": (3, 3)}, (), "slot 'thing' is (3, 3)"),
        ({"thing": 3}, (), "slot 'thing' is 3"),
        ({"a.b": (3, 5)}, (), "'a.b' is no name for a slot"),
        ({"values": (3, 5)}, (), "'values' is no name for a slot"),
        ({"thing": (3, "5")}, (), "slot 'thing' is (3, '5')"),
        ({"text": (3, 5)}, (), "2 of the 2 channels of slot 'text' have names"),
        ({"thing": (3, 5)}, ("{thing} {colour}",), "has no slot 'colour'"),
        ({"thing": (3, 5)}, ("{}",), "has no slot ''"),
        ({"thing": (3, 5)}, ("{thing:>3}",), "cannot write 'thing' as '>3'"),
        ({"thing": (3, 5)}, ("{thing!r}",), "has no slot 'thing'"),
        ({"thing": (3, 5)}, ("{thing",), "cannot be read"),
        ({"thing": (3, 5)}, ("nothing",), "has no slot"),
        ({"thing": (3, 5)}, ("",), "has no slot"),
        ({"thing": (3, 5)}, ("{thing} {thing}",), "uses a channel twice"),
        ({"thing": (3, 5), "animal": (4, 5)}, ("{thing} {animal}",), "uses a channel twice"),
        ({"thing": (3, 5)}, "{thing}", "phrases is"),
        ({"thing": (3, 5)}, (1,), "phrases is"),
        ({"thing": (3, 5)}, ("{thing}",) * 3, "declares 3 phrases"),
    ],
)
def test_what_does_not_fit_is_refused(slots, phrases, said):
    wrong = type("Wrong", (Seer,), {"slots": slots, "phrases": phrases})
    with pytest.raises(AstreaError) as caught:
        read_phrases("seer", wrong)
    assert said in caught.value.message
    assert "'seer'" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("several", [("colour",), ("feature",), ("text",), (3,), (["thing"],)])
def test_several_labels_are_of_a_slot_that_has_names(several):
    wrong = type("Wrong", (Seer,), {"multi_label": several})
    with pytest.raises(AstreaError, match=r"'seer': multi_label has .*no slot whose channels have names") as caught:
        read_phrases("seer", wrong)
    assert "thing" in caught.value.hint
    right = type("Right", (Seer,), {"multi_label": ("thing",)})
    parts = [part for phrase in read_phrases("seer", right) for part in phrase if isinstance(part, Slot)]
    marked = {part.name: part.multi_label for part in parts}
    assert marked["thing"]
    assert sum(marked.values()) == 1


def test_it_is_checked_when_the_class_is_looked_up():
    assert expert_class(f"{__name__}:Seer", allow_import=True) is Seer
    with pytest.raises(AstreaError, match="slot 'thing'"):
        expert_class(f"{__name__}:Outside", allow_import=True)


def test_boxes_and_regions_of_checkpoints_say_their_class_and_place():
    classes = ("cat", None, "left")  # a class that is called like a place, and one that has no name
    for labels in (box_labels(classes, "detection", 5, 7), region_labels(classes, "segmentation", 5, 7)):
        slots = placed_slots(labels, classes, 7)
        assert {name: labels[slice(*at)] for name, at in slots.items()} == {
            "thing": classes,
            "horizontal": ("left", "right"),
            "vertical": ("above", "below"),
            "feature": (None,) * 7,
        }
        assert with_slots(PLACED, slots) == PLACED
        unnamed = placed_slots((None, *labels[1:]), (None,) * 3, 7)
        assert with_slots(PLACED, unnamed) == PLACED[:1]


def test_a_name_may_be_written_out():
    class Writer(Seer):
        phrases = ("{feature} {vertical} ;", "{thing:name} {vertical} ;")

    first, second = read_phrases("writer", Writer)
    assert first == (FEATURE, VERTICAL, " ;")
    assert second == (Slot("thing", 3, 5, "words", written=True), VERTICAL, " ;")
    assert not second[0].is_spelled


def test_features_may_be_written_out_as_the_word_they_are_nearest_to():
    class Speller(Seer):
        phrases = ("{feature:name} {vertical} ;",)

    (found,) = read_phrases("speller", Speller)
    assert found == (replace(FEATURE, written=True), VERTICAL, " ;")
    assert found[0].is_spelled


def test_findings_with_one_word_may_be_counted_behind_it():
    class Counter(Seer):
        phrases = ("{feature:name} {feature:count} {vertical} ;",)

    (found,) = read_phrases("counter", Counter)
    assert found == (replace(FEATURE, written=True), replace(FEATURE, kind="count"), VERTICAL, " ;")
    assert not found[1].is_spelled


@pytest.mark.parametrize(
    ("phrases", "words"),
    [
        (("{feature:count}",), "cannot write 'feature' as 'count'"),
        (("{feature:count} {feature:name}",), "cannot write 'feature' as 'count'"),
        (("{thing:name} {thing:count}",), "cannot write 'thing' as 'count'"),
        (("{feature:words}",), "cannot write 'feature' as 'words'"),
        (("{feature}", "{feature:name}"), "slot 'feature' is a mixture in one phrase and written out in another"),
        (("{text:name}",), "cannot write 'text' as 'name'"),
        (("{thing:words}",), "cannot write 'thing' as 'words'"),
        (("{thing}", "{thing:name}"), "slot 'thing' is a mixture in one phrase and written out in another"),
    ],
)
def test_only_names_are_written_out_and_a_slot_is_one_thing(phrases, words):
    wrong = type("Wrong", (Seer,), {"phrases": phrases})
    with pytest.raises(AstreaError, match=words):
        read_phrases("wrong", wrong)
