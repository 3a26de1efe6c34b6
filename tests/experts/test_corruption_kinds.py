"""Kinds of wrong experts: each changes what its name says, of any expert that declares it, and nothing else."""

from __future__ import annotations

import pytest
import torch

from astrea.experts.corruption_kinds import FUNCTIONS, Channels, applies, channels_of, corrupt_by_kind
from astrea.experts.corruption_names import GROUPS, KINDS
from astrea.experts.protocol import ExpertFeatures

LABELS = ("cat", "dog", "cow", "red", "blue", "x0", "x1", "x2", "left", "right", "sure", None)
BARE = ("yes", None)


def features(count: int = 40, labels: tuple[str | None, ...] = LABELS, *, placed: bool = True) -> ExpertFeatures:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.rand(count, 4, len(labels), generator=generator)
    sure = torch.rand(count, 4, generator=generator) + 0.1
    return ExpertFeatures(tokens, sure, torch.rand(count, 4, 2, generator=generator) if placed else None)


def changed(kind: str) -> tuple[ExpertFeatures, ExpertFeatures]:
    part = features()
    return part, FUNCTIONS[kind](part, channels_of(LABELS), torch.Generator().manual_seed(1))


def columns(part: ExpertFeatures, *names: str) -> torch.Tensor:
    return part.tokens[..., [LABELS.index(name) for name in names]]


def test_channels_are_known_by_their_names():
    assert channels_of(LABELS) == Channels((3, 4), (0, 1, 2), (5, 6, 7), (8, 9))
    assert channels_of(BARE) == Channels((), (0,), (), ())
    assert channels_of((None, None)) == Channels((), (), (), ())


def test_every_name_has_a_function_and_a_group():
    assert set(FUNCTIONS) == set(KINDS)
    assert len(KINDS) == len({kind for kinds in GROUPS.values() for kind in kinds})


@pytest.mark.parametrize(("kind", "names"), [("wrong_class", ("cat", "dog", "cow")), ("wrong_colour", ("red", "blue"))])
def test_names_change_places_and_all_else_stays(kind: str, names: tuple[str, ...]):
    before, after = changed(kind)
    rest = [name for name in LABELS if name and name not in names]
    assert torch.equal(columns(before, *rest), columns(after, *rest))
    old, new = columns(before, *names), columns(after, *names)
    assert torch.equal(old.sort(-1).values, new.sort(-1).values)
    assert (old != new).all()
    assert torch.equal(before.confidence, after.confidence)
    assert torch.equal(before.places, after.places)


def test_mirrored_is_left_for_right_and_twice_is_as_before():
    before, after = changed("mirrored")
    assert torch.equal(
        columns(after, "x0", "x1", "x2", "left", "right"), columns(before, "x2", "x1", "x0", "right", "left")
    )
    torch.testing.assert_close(after.places[..., 0], 1 - before.places[..., 0])
    assert torch.equal(after.places[..., 1], before.places[..., 1])
    again = FUNCTIONS["mirrored"](after, channels_of(LABELS), torch.Generator())
    assert torch.equal(again.tokens, before.tokens)


def test_half_of_the_slots_are_of_the_picture_before():
    before, after = changed("half_swapped")
    other = before.tokens.roll(1, 0)
    own, strange = ((after.tokens == each).all(-1) for each in (before.tokens, other))
    assert (own ^ strange).all()
    assert 0.3 < strange.float().mean() < 0.7
    assert torch.equal(after.places[strange], before.places.roll(1, 0)[strange])
    assert torch.equal(after.confidence[strange], before.confidence.roll(1, 0)[strange])


def test_other_pictures_stuck_and_noise():
    before, after = changed("late")
    assert torch.equal(after.tokens, before.tokens.roll(13, 0))
    assert torch.equal(changed("swapped")[1].places, before.places.roll(1, 0))
    assert (changed("stuck_picture")[1].tokens == changed("stuck_picture")[1].tokens[:1]).all()
    assert (changed("stuck_slots")[1].tokens.std(1) == 0).all()
    drawn = changed("noise")[1].tokens - before.tokens
    torch.testing.assert_close(drawn.std((0, 1)), before.tokens.std((0, 1)), rtol=0.3, atol=0.0)


def test_what_an_expert_has_no_channels_for_leaves_it_as_it_is():
    part, channels = features(labels=BARE, placed=False), channels_of(BARE)
    assert [kind for kind in KINDS if not applies(kind, part, channels)] == ["wrong_class", "wrong_colour", "mirrored"]
    told = {"a": part, "b": features()}
    which = torch.tensor([0, 1] * 20)
    found, done = corrupt_by_kind(told, {"a": BARE, "b": LABELS}, which, ["mirrored"], torch.Generator().manual_seed(2))
    assert torch.equal(found["a"].tokens, part.tokens)
    assert done.tolist() == [-1, 1] * 20
    untouched = found["b"].tokens[which == 0]
    assert torch.equal(untouched, told["b"].tokens[which == 0])
    assert (found["b"].places[which == 1] != told["b"].places[which == 1]).any()


def test_every_kind_that_is_asked_for_is_drawn():
    told = {"b": features(300)}
    which = torch.zeros(300, dtype=torch.long)
    which[::3] = -1
    found, done = corrupt_by_kind(
        told, {"b": LABELS}, which, ["wrong_colour", "mirrored"], torch.Generator().manual_seed(3)
    )
    assert torch.equal(done, which)
    places, tokens = ((getattr(found["b"], f) != getattr(told["b"], f)).flatten(1).any(1) for f in ("places", "tokens"))
    assert tokens.tolist() == (which == 0).tolist()
    assert 70 < int(places.sum()) < 130
