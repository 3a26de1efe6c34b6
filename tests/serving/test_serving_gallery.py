"""An index that clients may search: the nearest pictures, and views of them by number alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from astrea.common.errors import AstreaError
from astrea.retrieval.build import build_index
from astrea.serving.app import Server, application
from astrea.serving.settings import Settings
from serving_clients import data_url


@pytest.fixture(scope="module")
def folder(loaded, pictures, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("gallery")
    for number, picture in enumerate(pictures):
        picture.save(place / f"{number}.png")
    build_index(loaded.model, "tiny", place, place / ".astrea-index")
    return place


@pytest.fixture(scope="module")
def gallery(loaded, folder) -> Iterator[TestClient]:
    with TestClient(application(Server(loaded, Settings(name="tiny", index=folder)))) as running:
        yield running


def test_a_picture_finds_itself_first_and_a_text_ranks_all(gallery, pictures):
    for number, picture in enumerate(pictures):
        hits = gallery.post("/astrea/search", json={"image": data_url(picture), "top": 2}).json()["data"]
        assert (hits[0]["name"], len(hits)) == (f"{number}.png", 2)
        assert hits[0]["score"] == pytest.approx(1, abs=1e-3)
    hits = gallery.post("/astrea/search", json={"text": "a red cow."}).json()["data"]
    assert sorted(hit["name"] for hit in hits) == [f"{number}.png" for number in range(4)]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert gallery.get("/v1/models").json()["data"][0]["pictures"] == 4


def test_views_are_small_pictures_and_come_by_number_alone(gallery):
    view = Image.open(io.BytesIO(gallery.get("/astrea/pictures/0").content))
    assert max(view.size) <= 320
    for wrong in ("4", "-1", "x", "0.png", "..%2f0.png", "99999999999999999999"):
        assert gallery.get(f"/astrea/pictures/{wrong}").status_code in (404, 422)


BAD = ({}, {"text": "a", "image": "b"}, {"text": ""}, {"image": "/etc/passwd"}, {"text": "a", "top": 0})


@pytest.mark.parametrize("body", BAD)
def test_what_cannot_be_searched_for_is_refused(gallery, body):
    assert gallery.post("/astrea/search", json=body).status_code in (400, 422)


def test_without_an_index_there_is_nothing_to_search(client, loaded, tmp_path):
    assert client.post("/astrea/search", json={"text": "a"}).status_code == 404
    with pytest.raises(AstreaError, match="holds no index"):
        Server(loaded, Settings(name="tiny", index=tmp_path))
