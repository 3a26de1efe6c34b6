"""Compact experts that hand on states: what is gone, what stays, and that the rest of the library reads them."""

from __future__ import annotations

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.experts.bank import COMPACT, ExpertBank, expert_specs
from astrea.experts.phrases import read_phrases
from astrea.model.components import BUNDLED, load_component
from astrea.world.evaluation.experts import expert_scores
from astrea.world.experts.captioning import VOCABULARY
from astrea.world.experts.classification import ClassificationExpert
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.vocabulary import CATEGORIES, KINDS

KIND_NAMES = {kind.name for kind in KINDS}
THINGS = {"captioning": len(VOCABULARY), "segmentation": len(CATEGORIES), "detection": len(KINDS) // 2 + 1}
"""How many channels of each expert name things."""


def bank(states: bool) -> ExpertBank:
    """With the weights that are in the package."""
    made = ExpertBank({kind: {"kind": kind, "options": {"states": states}} for kind in COMPACT})
    for kind in COMPACT:
        load_component(made[kind], BUNDLED, kind)
    return made


@pytest.fixture(scope="module")
def scenes():
    return [split_scene("train", index, 0) for index in range(6)]


@pytest.mark.parametrize("kind", COMPACT)
def test_no_channel_names_a_thing_and_one_slot_is_of_features(kind):
    expert = bank(states=True)[kind]
    assert not KIND_NAMES & set(expert.labels)
    assert len(expert.labels) == expert.width
    (phrase,) = read_phrases(kind, expert)
    (feature,) = [part for part in phrase if not isinstance(part, str) and part.kind == "feature"]
    assert set(expert.labels[feature.start : feature.stop]) == {None}


@pytest.mark.parametrize("kind", THINGS)
def test_places_sureness_and_colours_stay_as_they_were(kind, scenes):
    """The same weights, with names and without: what is behind the names is the same, channel by channel."""
    pixels = pixels_from_scenes(scenes)
    named, stated = bank(states=False)[kind], bank(states=True)[kind]
    before, after = named(pixels), stated(pixels)
    first, last = stated.slots["feature"]
    kept = torch.ones(stated.width, dtype=torch.bool)
    kept[first:last] = False
    behind = before.tokens[..., THINGS[kind] :][..., : int(kept.sum())]
    assert torch.equal(after.tokens[..., kept], behind)
    assert torch.equal(after.confidence, before.confidence)
    labels = [label for label, there in zip(stated.labels, kept.tolist(), strict=True) if there]
    assert labels == list(named.labels[THINGS[kind] :][: len(labels)])
    assert after.tokens[..., first:last].std() > 0


def test_tags_become_one_token_of_the_whole_picture(scenes):
    pixels = pixels_from_scenes(scenes)
    found = bank(states=True)["classification"](pixels)
    assert found.tokens.shape == (len(scenes), 1, bank(states=True)["classification"].width)
    assert (found.confidence == 1).all()
    assert not torch.equal(found.tokens[0], found.tokens[1])


@pytest.mark.parametrize("kind", COMPACT)
def test_people_are_told_the_same(kind, scenes):
    pixels = pixels_from_scenes(scenes)
    found, wanted = (bank(states=states)[kind].readings(pixels) for states in (True, False))
    for one, other in zip(found, wanted, strict=True):
        assert (one.boxes, one.labels, one.scores) == (other.boxes, other.labels, other.scores)
        assert one.labels


def test_experts_are_scored_by_their_names_whatever_they_hand_on(scenes):
    assert expert_scores(bank(states=True), scenes) == expert_scores(bank(states=False), scenes)


def test_what_an_option_declares_is_known_before_an_expert_is_built():
    entry = {"kind": "classification", "options": {"states": True}}
    declared = expert_specs({"tags": entry, "plain": {"kind": "classification"}})
    assert (declared["tags"].num_tokens, declared["plain"].num_tokens) == (1, ClassificationExpert.num_tokens)
    assert declared["tags"].width != declared["plain"].width


def test_states_have_no_names_to_choose_from():
    with pytest.raises(AstreaError, match="only and states"):
        ExpertBank({"one": {"kind": "detection", "options": {"states": True, "only": ["cat"]}}})
