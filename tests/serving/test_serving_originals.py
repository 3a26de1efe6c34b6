"""A model with an expert that reads pictures as they are sees the same through a server, and in commands that ask many
questions, as when it is asked directly."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from astrea.data.fitted import fit_picture
from astrea.experts.protocol import ExpertFeatures
from astrea.model.loaded import LoadedModel
from astrea.serving.app import Server, application
from astrea.serving.features import FeatureCache, Picture, picture_of
from astrea.serving.local import Asker
from astrea.serving.settings import Settings
from original_readers import reading_originals
from serving_clients import asking, data_url

CHAT = "/v1/chat/completions"
QUESTION = "what colour is the cat?"


@pytest.fixture(scope="module")
def wide() -> Image.Image:
    """Three times as wide as high, and with more than its square can hold."""
    blocks = np.random.default_rng(8).integers(0, 256, (4, 12, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((270, 90), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def whole(tiny_model, tiny_processor) -> Iterator[LoadedModel]:
    with reading_originals(tiny_model, tiny_processor) as (loaded, _):
        yield loaded


@pytest.fixture(scope="module")
def server(whole) -> Server:
    return Server(whole, Settings(name="tiny"))


@pytest.fixture(scope="module")
def seeing(server) -> Iterator[TestClient]:
    with TestClient(application(server)) as running:
        yield running


def seen(loaded: LoadedModel, picture: Image.Image, *, original: bool = True) -> dict[str, list[torch.Tensor | None]]:
    """What the experts see when the model is asked directly."""
    made = loaded.processor.image_processor([picture])
    with torch.inference_mode():
        found = loaded.model.encode_images(made["pixel_values"], made["original_images"] if original else None)
    return {name: [part.tokens, part.confidence, part.places] for name, part in found.items()}


def same(one, other) -> bool:
    return (one is None and other is None) or torch.equal(one, other)


def asked(client: TestClient, picture: Image.Image, **more: object) -> dict:
    body = {"messages": asking(QUESTION, data_url(picture)), "max_tokens": 8, "astrea": more}
    response = client.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_answers_weights_masking_and_readings_are_those_of_explain(seeing, whole, wide):
    found = asked(seeing, wide, readings=True, masking=True)
    why = whole.explain(wide, QUESTION, max_new_tokens=8)
    assert found["choices"][0]["message"]["content"] == why.answer
    (picture,) = found["astrea"]["pictures"]
    assert picture["gate_weights"] == pytest.approx(why.shares, abs=1e-4)
    for name, effect in found["astrea"]["masking"].items():
        assert effect["answer"] == why.masking[name].answer
        assert effect["nats_lost"] == pytest.approx(why.masking[name].nats_lost, abs=1e-3)
    for name, reading in why.readings.items():
        assert {**reading.as_dict(), "mask": picture["readings"][name]["mask"]} == picture["readings"][name]
        if reading.mask is not None:
            assert [len(row) for row in picture["readings"][name]["mask"]] == [reading.mask.shape[1]] * len(
                reading.mask
            )
    assert why.readings["detection"].boxes  # of the picture itself, and
    assert why.readings["segmentation"].mask.shape[0] < 64  # of the part of the square where the picture is


def test_what_experts_see_is_the_same_bit_for_bit_and_not_what_is_in_the_square(seeing, server, whole, wide, pictures):
    for picture in (wide, pictures[1], pictures[2]):
        url = data_url(picture)
        read = seeing.portal.call(server.reader.read, base64.b64decode(url.partition(",")[2]))
        features = server.engine.call(lambda read=read: server.engine.features.of([read], [()])).result()
        plain, square = seen(whole, picture), seen(whole, picture, original=False)
        for name, part in features.items():
            assert all(map(same, [part.tokens, part.confidence, part.places], plain[name]))
            assert torch.equal(plain[name][0], square[name][0]) == (name != "detection")


def test_vectors_are_those_of_the_picture_as_it_is(seeing, whole, wide):
    row = seeing.post("/v1/embeddings", json={"input": [data_url(wide)]}).json()["data"][0]["embedding"]
    made = whole.processor.image_processor([wide])
    square = whole.model.embed_image(made["pixel_values"])[0].tolist()
    assert row == pytest.approx(whole.model.embed_image(**made)[0].tolist(), abs=1e-6)
    assert row != pytest.approx(square, abs=1e-3)


def test_commands_that_ask_many_questions_see_the_same(whole, wide, pictures):
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    with Asker(whole) as asker:
        for picture in (wide, pictures[2]):
            shown = asker.picture(picture)
            made = whole.processor.image_processor([picture])
            assert torch.equal(shown.pixels, made["pixel_values"][0])
            assert torch.equal(shown.original, made["original_images"][0])
            (features,) = asker.engine.call(lambda shown=shown: asker.engine.features.each([shown], [()])).result()
            for name, parts in seen(whole, picture).items():
                found = features[name]
                assert all(map(same, [found.tokens, found.confidence, found.places], parts))
            said = asker.submit([{"role": "user", "content": content}], [shown], most=8).text()
            assert said == whole.ask(picture, QUESTION, max_new_tokens=8).answer


def test_pictures_with_one_square_and_different_originals_are_different_pictures(whole):
    flat = [Image.new("RGB", size, "red") for size in ((64, 64), (128, 128))]
    with Asker(whole) as asker:
        one, other = map(asker.picture, flat)
    assert torch.equal(one.pixels, other.pixels)
    assert one.key != other.key


class Counted:
    """Experts that note what they are given: which are asked, for how many pictures, and whether as they are."""

    names = ("square", "whole")

    def __init__(self) -> None:
        self.given: list[tuple[list[str] | None, int, list[tuple[int, ...]] | None]] = []

    def takes_original(self, name: str) -> bool:
        return name == "whole"

    def __call__(self, pixels_N3SS, names=None, originals=None) -> dict[str, ExpertFeatures]:
        shapes = None if originals is None else [tuple(one.shape) for one in originals]
        self.given.append((names, len(pixels_N3SS), shapes))
        light = (pixels_N3SS if originals is None else originals[0][None] / 255).mean((1, 2, 3))[:, None, None]
        return {name: ExpertFeatures(light, torch.ones(len(light), 1)) for name in names or self.names}


def test_only_those_that_read_originals_are_sent_them_one_picture_at_a_time(pictures):
    experts = Counted()
    cache = FeatureCache(experts, 64, torch.device("cpu"), 1 << 20)
    shown = [picture_of(str(number), fit_picture(pictures[number], 64, original=True)) for number in (1, 2)]
    experts.given.clear()
    features = cache.of([*shown, shown[0]], [(), (), ()])
    assert experts.given == [
        (["square"], 2, None),
        (["whole"], 1, [(3, 64, 48)]),
        (["whole"], 1, [(3, 60, 90)]),
    ]
    light = [float(shown[place].original.float().mean() / 255) for place in (0, 1, 0)]
    assert features["whole"].tokens.flatten().tolist() == pytest.approx(light)
    experts.given.clear()
    squares = [Picture("of a caller that has squares only", shown[0].pixels)]
    cache.of(squares, [()])
    assert experts.given == [(["square", "whole"], 1, None)]
