"""Captions: what they say, in which order, and that the parser gets it back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrea.world.scenes.captions import CaptionFacts, captions, parse_caption, short_caption
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import text_vocabulary
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import COLOURS, KINDS


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [split_scene(split, index, 0) for split in ("train", "novel") for index in range(200)]


def objects_of(scene: Scene) -> Counter[tuple[str, str]]:
    return Counter((COLOURS[thing.colour], KINDS[thing.kind].name) for thing in scene.objects)


def test_references_state_the_whole_truth(scenes: list[Scene]) -> None:
    for scene in scenes:
        place = {(COLOURS[o.colour], KINDS[o.kind].name): o.centroid for o in scene.objects}
        for text in captions(scene, 6):
            facts = parse_caption(text)
            assert facts.objects == objects_of(scene)
            assert facts.word == scene.word
            assert len(facts.relations) <= 2
            for first, side, second in facts.relations:
                assert facts.objects[first] == facts.objects[second] == 1  # type: ignore[index]
                dx, dy = (place[first][i] - place[second][i] for i in (0, 1))  # type: ignore[index]
                assert {"left": -dx, "right": dx, "above": -dy, "below": dy}[side] >= 8
            assert len(text.split()) <= 41


def test_references_differ_and_the_first_is_canonical(scenes: list[Scene]) -> None:
    for scene in scenes:
        texts = captions(scene)
        assert len(set(texts)) == len(texts) == 3
        assert texts == captions(scene)
        assert captions(scene, 3, seed=1)[0] == captions(scene, 1)[0] == texts[0]
        order = sorted(scene.objects, key=lambda thing: thing.centroid)
        listed = [f"{COLOURS[thing.colour]} {KINDS[thing.kind].name}" for thing in order]
        first_sentence = texts[0].split(".")[0]
        named = first_sentence.replace(" and ", ", ").split(", ")
        assert [name.split(" ", 1)[1] for name in named] == listed
    assert any(captions(scene, 3, seed=1) != captions(scene, 3, seed=2) for scene in scenes)


def test_short_caption(scenes: list[Scene]) -> None:
    for scene in scenes:
        words = short_caption(scene)
        assert 2 <= len(words) <= 8
        order = sorted(scene.objects, key=lambda thing: -thing.area)
        assert words[:2] == [COLOURS[order[0].colour], KINDS[order[0].kind].name]
        rest = words[2:]
        if len(order) > 1:
            dx, dy = (order[0].centroid[i] - order[1].centroid[i] for i in (0, 1))
            side = ("left" if dx < 0 else "right") if abs(dx) >= abs(dy) else ("above" if dy < 0 else "below")
            assert rest[:3] == [side, COLOURS[order[1].colour], KINDS[order[1].kind].name]
            rest = rest[3:]
        assert rest == (["sign", scene.word] if scene.word else [])


def test_parse_known_sentences() -> None:
    facts = parse_caption(
        "A red sun, a blue cow and a red sun. The red sun is to the left of a cow. The sign says STOP."
    )
    assert facts.objects == {("red", "sun"): 2, ("blue", "cow"): 1}
    assert facts.relations == {(("red", "sun"), "left", (None, "cow"))}
    assert facts.word == "stop"
    assert parse_caption("") == CaptionFacts(Counter(), set(), None)
    assert parse_caption("red sunny suns, cow red. the sign says") == CaptionFacts(Counter(), set(), None)
    # The printed word is no object, even where it stands among them; the first word counts.
    facts = parse_caption("the sign says red sun. the sign says exit")
    assert facts.word == "red"
    assert facts.objects == {}


@given(st.text(max_size=200))
def test_parse_never_raises(text: str) -> None:
    assert isinstance(parse_caption(text), CaptionFacts)


@given(st.lists(st.sampled_from(text_vocabulary()), max_size=40))
def test_parse_takes_any_order_of_known_words(words: list[str]) -> None:
    facts = parse_caption(" ".join(words))
    assert facts.objects.total() <= len(words) // 2
    assert all(colour in COLOURS for colour, _ in facts.objects)
