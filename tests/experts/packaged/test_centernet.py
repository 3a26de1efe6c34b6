"""The detector that comes with the package, on photographs of scikit-image."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from PIL import Image
from skimage import data as photographs

from astrea import AstreaError
from astrea.experts.bank import ExpertBank
from astrea.experts.packaged.centernet import COCO, WEIGHTS, CenterNetExpert
from astrea.experts.packaged.centernet_network import twice
from astrea.experts.packaged.stored import read_weights
from astrea.model.image_processing import AstreaImageProcessor

NAMED = {"astronaut": "person", "coffee": "cup", "chelsea": "cat"}


@pytest.fixture(scope="module")
def expert() -> CenterNetExpert:
    return CenterNetExpert().eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    pictures = [Image.fromarray(getattr(photographs, name)()) for name in NAMED]
    return AstreaImageProcessor(512)(pictures)["pixel_values"]


@pytest.fixture(scope="module")
def features(expert, pixels):
    with torch.no_grad():
        return expert(pixels)


def test_the_network_computes_what_the_published_graph_does(expert, pixels):
    # Computed by an interpreter of the published graph, step by step.
    with torch.no_grad():
        heat, sides, inside = expert.network(pixels[:1] * 255)
    assert heat.shape == (1, 80, 128, 128)
    assert heat[0, 0, 64, 47].item() == pytest.approx(0.6096, abs=1e-3) == heat.max().item()
    torch.testing.assert_close(
        sides[0, :, 64, 47], torch.tensor([179.6535, 247.1815, 180.9008, 263.5518]), atol=0.1, rtol=0
    )
    wanted = torch.tensor([0.1090, -0.3633, -0.3346, -0.3749, 0.2490])
    torch.testing.assert_close(inside[0, :5, 8, 8], wanted, atol=1e-3, rtol=0)
    assert heat.sum().item() == pytest.approx(4173.2, rel=1e-4)
    assert inside.sum().item() == pytest.approx(-15312.7, rel=1e-4)


def test_it_names_what_is_on_the_photographs_and_says_where(expert, pixels):
    with torch.no_grad():
        readings = expert.readings(pixels)
    for name, reading in zip(NAMED.values(), readings, strict=True):
        assert reading.labels[0] == name
        assert reading.scores == sorted(reading.scores, reverse=True)
    x0, y0, x1, y1 = readings[1].boxes[0]  # the cup, a little right of the middle
    assert 0.2 < x0 < 0.4 < 0.6 < x1 < 0.8
    assert y0 < 0.3 < 0.6 < y1


def test_findings_are_mixtures_with_a_place_and_a_size(expert, features):
    there = features.confidence > 0
    assert there[:, 0].all()
    tokens = features.tokens[there]
    for slot in ("thing", "vertical", "horizontal", "size"):
        start, stop = expert.slots[slot]
        torch.testing.assert_close(tokens[:, start:stop].sum(-1), torch.ones(len(tokens)))
        assert None not in expert.labels[start:stop]
    start, stop = expert.slots["feature"]
    assert set(expert.labels[start:stop]) == {None}
    assert tokens[:, start:stop].std() == pytest.approx(1, abs=0.01)
    assert stop == expert.width == len(expert.labels)
    assert ((features.places[there] >= 0) & (features.places[there] <= 1)).all()


def test_phrases_name_slots_features_first(expert):
    from string import Formatter

    fields = [[field for _, field, _, _ in Formatter().parse(phrase) if field] for phrase in expert.phrases]
    assert [row[0] for row in fields] == ["feature", "thing"]
    assert {field for row in fields for field in row} == set(expert.slots)


def test_exact_width_and_height_stand_between_words_and_features(expert, pixels, features):
    with torch.no_grad():
        box = expert.found(pixels).box
    start = expert.slots["size"][1]
    torch.testing.assert_close(features.tokens[..., start : start + 2], box[..., 2:] - box[..., :2])


def test_a_picture_of_nothing_has_no_findings(expert):
    with torch.no_grad():
        assert not expert(torch.full((1, 3, 64, 64), 0.5)).confidence.any()


def test_upsampling_keeps_every_value_and_puts_means_between():
    assert twice(torch.tensor([[1.0, 3, 7]]), 1).tolist() == [[1, 2, 3, 5, 7, 7]]


def test_the_card_is_of_the_weights_beside_it():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert "MIT License" in WEIGHTS.with_suffix(".LICENSE").read_text()


def test_it_is_a_kind_of_a_recipe_and_its_options_are_checked(pixels):
    bank = ExpertBank({"things": {"kind": "centernet", "options": {"threshold": 0.9}}})
    with torch.no_grad():
        assert not bank(pixels)["things"].confidence.any()
    with pytest.raises(AstreaError, match=r"expert 'things': threshold=2"):
        ExpertBank({"things": {"kind": "centernet", "options": {"threshold": 2}}})
    assert len(set(COCO)) == 80


def test_damaged_weights_are_told(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(WEIGHTS.read_bytes()[:1000])
    for name in ("cut", "gone"):
        with pytest.raises(AstreaError, match=rf"{name}.safetensors is missing or damaged"):
            read_weights(tmp_path / f"{name}.safetensors")
