"""Pictures are found by what experts see in them as they are, where experts read them so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.data.images import load_image
from astrea.evaluation.generate import Predictor, encode
from astrea.model.fingerprint import model_fingerprint
from astrea.model.loaded import LoadedModel
from astrea.retrieval import doubtful, rank_folder
from astrea.retrieval import pictures as pictures_module
from astrea.retrieval.build import build_index
from astrea.retrieval.rerank import Hit, per_token_likelihood
from astrea.retrieval.search import PictureIndex, search_by_picture, search_by_text
from original_readers import reading_originals

TEXT = "a red sun and a blue cow."
SIZES = ((160, 40), (64, 64), (30, 90))


@pytest.fixture(scope="module")
def whole(tiny_model, tiny_processor) -> Iterator[LoadedModel]:
    with reading_originals(tiny_model, tiny_processor) as (loaded, given):
        yield loaded
    assert max(map(len, given)) == 2  # no more pictures at once than are allowed


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures_module, "ORIGINALS_AT_ONCE", 2)
        yield


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("album")
    random = np.random.default_rng(4)
    for number, size in enumerate(SIZES):
        blocks = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        blocks.resize(size, Image.Resampling.BICUBIC).save(place / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def index(whole, album, tmp_path_factory) -> PictureIndex:
    place = tmp_path_factory.mktemp("index")
    assert build_index(whole.model, "tiny", album, place / "i").embedded == len(SIZES)
    return PictureIndex(place / "i")


def seen(whole: LoadedModel, album: Path, number: int):
    return encode(whole.model, whole.processor, [load_image(album / f"{number}.png")])


def test_the_vector_of_a_picture_is_that_of_the_picture_as_it_is(whole, album, index):
    for number, size in enumerate(SIZES):
        (hit,) = search_by_picture(whole.model, index, album / f"{number}.png", top=1)
        assert (hit.path.name, hit.score) == (f"{number}.png", pytest.approx(1, abs=1e-5))
        features = seen(whole, album, number)
        cosines, rows = index.nearest(whole.model.embed_image(features=features).numpy(), 1)
        assert index.path(int(rows[0, 0])).name == f"{number}.png"
        assert cosines[0, 0] == pytest.approx(1, abs=1e-5)
        squares = whole.processor.image_processor([load_image(album / f"{number}.png")])["pixel_values"]
        square, own = whole.model.embed_image(squares)[0], whole.model.embed_image(features=features)[0]
        assert torch.allclose(square, own, atol=1e-5) == (size == (64, 64))


@pytest.mark.parametrize("shortlist", [0, 3])
def test_a_text_is_compared_with_pictures_as_they_are(whole, album, index, shortlist):
    model, processor = whole
    hits = search_by_text(model, processor, index, TEXT, top=3, rerank=shortlist)
    plain = rank_folder(model, processor, album, TEXT, top=3, report=Reporter(), shortlist=shortlist)
    assert [hit.path.name for hit in hits] == [hit.path.name for hit in plain]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in plain], abs=1e-4)
    if shortlist:
        predictor = Predictor(model, processor.tokenizer)
        for hit in hits:
            alone = per_token_likelihood(predictor, seen(whole, album, int(hit.path.stem)), TEXT)
            assert hit.score == pytest.approx(float(alone), abs=1e-4)


def test_what_is_usual_is_looked_for_in_pictures_as_they_are(whole, album, monkeypatch):
    looked_at = []

    def strange(familiar, features):
        looked_at.append(features)
        return torch.tensor([[0.0], [1.0]])

    monkeypatch.setattr(doubtful, "strangeness", strange)
    monkeypatch.setattr(whole.model, "confidence_estimator", ConfidenceEstimator({"detection": None}))
    hits = [Hit(album / name, 0.0) for name in ("0.png", "gone.png", "2.png")]
    near, gone, far = doubtful.doubts_about_pictures(whole.model, hits)
    assert (near, far) == (None, doubtful.UNLIKE)
    assert "gone.png" in str(gone)
    (features,) = looked_at
    for row, number in enumerate((0, 2)):
        alone = seen(whole, album, number)["detection"].tokens[0]
        torch.testing.assert_close(features["detection"].tokens[row], alone)


def test_an_index_that_was_made_of_squares_is_another_models(whole, album, index):
    fingerprint = model_fingerprint(whole.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(whole.model.experts["detection"]), "picture", "square")
        assert model_fingerprint(whole.model) != fingerprint
        with pytest.raises(AstreaError, match="another model"):
            index.check_model(whole.model)
    index.check_model(whole.model)
