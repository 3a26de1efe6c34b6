"""Experts that read pictures as they are: what reaches them, and where in the picture their findings are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from astrea import AstreaError, Expert, ExpertFeatures, Reading
from astrea.data import images as images_module
from astrea.data.feature_cache import FeatureCache
from astrea.data.images import to_bounded_array
from astrea.data.picture_features import PictureFeatures
from astrea.experts.bank import ExpertBank
from astrea.model.explanation import explain
from astrea.model.generation import rows_of
from astrea.model.image_processing import AstreaImageProcessor
from astrea.model.loading import load_model
from astrea.model.processing import AstreaProcessor
from noise_images import noise
from original_readers import reading_originals
from own_contexts import data_of


class Corner(Expert):
    """Tells the size of what it is given, and finds its upper left quarter."""

    num_tokens, width, labels = 1, 2, (None, None)

    def forward(self, pixels_B3HW):
        sizes = [[float(one.shape[-1]), float(one.shape[-2])] for one in pixels_B3HW]
        self.given = [one.clone() for one in pixels_B3HW]
        count = len(sizes)
        return ExpertFeatures(torch.tensor(sizes)[:, None], torch.ones(count, 1), torch.full((count, 1, 2), 0.25))

    def readings(self, pixels_B3HW):
        return [Reading("corner", boxes=[(0, 0, 0.5, 0.5)], labels=["it"], scores=[1.0]) for _ in pixels_B3HW]


class Original(Corner):
    picture = "original"


@pytest.fixture
def bank() -> ExpertBank:
    found = ExpertBank({})
    found.experts["square"], found.experts["whole"] = Corner(), Original()
    found.options = {"square": {}, "whole": {}}
    return found


PICTURES = [Image.new("RGB", (200, 100), (255, 0, 0)), Image.new("RGB", (30, 60), (0, 0, 255))]


@pytest.fixture
def made():
    return AstreaImageProcessor(64, originals=True)(PICTURES)


def test_each_gets_its_kind_of_picture(bank, made):
    seen = bank(made["pixel_values"], originals=made["original_images"])
    assert seen["square"].tokens[:, 0].tolist() == [[64, 64], [64, 64]]
    assert seen["whole"].tokens[:, 0].tolist() == [[200, 100], [30, 60]]
    assert bank["whole"].given[0].amax((1, 2)).tolist() == [1, 0, 0]
    assert bank["whole"].given[0].dtype == torch.float32


def test_places_are_shares_of_the_square_for_all(bank, made):
    seen = bank(made["pixel_values"], originals=made["original_images"])
    assert seen["square"].places[:, 0].tolist() == [[0.25, 0.25], [0.25, 0.25]]
    # A quarter down a picture that fills the middle half of its square.
    assert seen["whole"].places[:, 0].tolist() == [[0.25, 0.375], [0.375, 0.25]]


def test_where_there_are_only_squares_it_gets_those(bank, made):
    seen = bank(made["pixel_values"])
    assert seen["whole"].tokens[:, 0].tolist() == [[64, 64], [64, 64]]
    assert seen["whole"].places[:, 0].tolist() == [[0.25, 0.25], [0.25, 0.25]]


def test_readings_are_told_of_the_picture_and_not_of_its_square(bank, made):
    sizes = [picture.size for picture in PICTURES]
    wide, high = bank.readings(made["pixel_values"], made["original_images"], sizes)
    assert wide["whole"].boxes == high["whole"].boxes == [(0, 0, 0.5, 0.5)]
    assert wide["square"].boxes[0] == pytest.approx((0, 0, 0.5, 0.5))
    assert high["square"].boxes[0] == pytest.approx((0, 0, 0.5, 0.5))
    (both, _) = bank.readings(made["pixel_values"], None, sizes)
    assert both["whole"].boxes == both["square"].boxes
    (plain, _) = bank.readings(made["pixel_values"], made["original_images"])
    assert plain["square"].boxes == [(0, 0, 0.5, 0.5)]


def test_a_reading_within_a_box_keeps_what_lies_there():
    mask = torch.arange(16).view(4, 4)
    reading = Reading("it", boxes=[(0.5, 0.25, 1, 0.5), (0, 0, 1, 1)], mask=mask).within((0, 0.25, 1, 0.75))
    assert reading.boxes == [(0.5, 0, 1, 0.5), (0, 0, 1, 1)]
    assert torch.equal(reading.mask, mask[1:3])


def test_originals_that_do_not_fit_are_told(bank, made):
    with pytest.raises(AstreaError, match="2 squares come with 1 original"):
        bank(made["pixel_values"], originals=made["original_images"][:1])
    with pytest.raises(AstreaError, match="original pictures"):
        bank(made["pixel_values"], originals=[torch.zeros(1, 4, 4), torch.zeros(3, 4, 4)])


def test_a_picture_as_it_is_has_no_more_than_so_many_pixels():
    assert to_bounded_array(PICTURES[0]).shape == (100, 200, 3)
    assert to_bounded_array(PICTURES[0], 5000).shape == (50, 100, 3)
    assert to_bounded_array(Image.new("RGB", (4000, 1)), 100).size <= 300
    assert images_module.ORIGINAL_PIXELS < images_module.MAX_PIXELS


def test_the_processor_gives_them_where_it_is_told_to(tiny_processor, tmp_path):
    whole = AstreaProcessor(
        AstreaImageProcessor(64, originals=True), tiny_processor.tokenizer, tiny_processor.num_visual_tokens
    )
    text = "<user> <image> is it red? <assistant>"
    made = whole(images=PICTURES, text=[text, text])
    assert [tuple(one.shape) for one in made["original_images"]] == [(3, 100, 200), (3, 60, 30)]
    assert made["original_images"][0].dtype == torch.uint8
    assert "original_images" not in tiny_processor(images=PICTURES, text=[text, text])
    whole.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["image_processor"]["originals"] is True


@pytest.fixture
def whole(tiny_model, tiny_processor):
    """A model of which one expert reads pictures as they are, and what that is given."""
    with reading_originals(tiny_model, tiny_processor, "classification") as found:
        yield found


@pytest.fixture
def seeing(whole):
    return whole[1]


@pytest.fixture
def processor(whole):
    return whole[0].processor


def test_an_explanation_shows_it_the_picture_as_it_is(tiny_model, processor, seeing):
    file = io.BytesIO()
    PICTURES[0].save(file, "PNG")
    explain(tiny_model, processor, file.getvalue(), "is it red?", longest=2, masking=False)
    assert seeing == [[(3, 100, 200)], [(3, 100, 200)]]  # once for the answer, once for its reading


def test_it_is_shown_to_generate_and_to_several_beams(tiny_model, processor, seeing):
    inputs = processor(images=PICTURES, text=["<user> <image> is it red? <assistant>"] * 2)
    tiny_model.generate(**inputs, num_beams=2, max_new_tokens=2, do_sample=False)
    assert [(3, 100, 200), (3, 100, 200), (3, 60, 30), (3, 60, 30)] in seeing


def test_it_is_shown_wherever_the_model_takes_pictures(tiny_model, processor):
    inputs = processor(images=[noise(200, 100), noise(30, 60)], text=["<user> <image> is it red? <assistant>"] * 2)
    pixels, originals = inputs["pixel_values"], inputs["original_images"]
    features = tiny_model.encode_images(pixels, originals)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask", "question_mask")}
    assert torch.equal(tiny_model.shares(**inputs), tiny_model.shares(**text, features=features))
    assert not torch.equal(tiny_model.shares(**inputs), tiny_model.shares(**text, pixel_values=pixels))
    for method in (tiny_model.embed_image, tiny_model.model.embed_image):
        vectors = method(pixels, original_images=originals)
        assert torch.equal(vectors, tiny_model.embed_image(features=features))
        assert not torch.equal(vectors, method(pixels))
    for method in (tiny_model.get_image_features, tiny_model.model.get_image_features):
        tokens = method(pixels, original_images=originals).pooler_output
        assert torch.equal(tokens, tiny_model.get_image_features(features=features).pooler_output)
        assert not torch.equal(tokens, method(pixels).pooler_output)


def test_the_processor_of_a_loaded_model_gives_what_its_experts_read(tiny_folder, whole):
    (tiny_folder / "processor_config.json").read_text().index('"originals": false')
    _, processor = load_model(tiny_folder)
    assert processor.image_processor.originals


def test_rows_of_pictures_are_picked_from_lists_too():
    originals = [torch.zeros(3, 1, n) for n in range(1, 4)]
    found = rows_of({"pixel_values": torch.arange(3), "original_images": originals}, torch.tensor([2, 0]))
    assert found["pixel_values"].tolist() == [2, 0]
    assert [one.shape[2] for one in found["original_images"]] == [3, 1]


def test_training_encodes_them_as_they_are_and_keeps_what_it_sees(tiny_model, tiny_processor, seeing, tmp_path):
    rows = []
    for number, picture in enumerate(PICTURES):
        picture.save(tmp_path / f"{number}.png")
        said = [{"from": "human", "value": "<image>\nis it red?"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": said})
    path: Path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    kept = PictureFeatures(FeatureCache(tmp_path / "cache", 1 << 24), pytest.fail)
    for _ in range(2):
        data = data_of([path], tiny_model, tiny_processor.tokenizer, kept=kept)
        samples = data.draw(0, 2, 0)
        features = samples.encode()["classification"]
        data.pool.shutdown()
    assert sorted(shape for batch in seeing for shape in batch) == [(3, 60, 30), (3, 100, 200)]  # the first time only
    assert len(features.tokens) == 2
    kept.close()
