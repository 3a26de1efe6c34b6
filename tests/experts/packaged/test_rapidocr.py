"""Text in pictures, read by the networks of a package, handed on in the language model's word pieces."""

from __future__ import annotations

import copy
import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data as photographs

from astrea import AstreaError
from astrea.data.picture_features import expert_key
from astrea.experts.bank import ExpertBank, expert_specs
from astrea.experts.packaged.ocr import OcrExpert, decode
from astrea.experts.packaged.word_pieces import word_pieces
from astrea.experts.pretrained.entry import resolve
from astrea.model.image_processing import AstreaImageProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import ExpertEntry, Recipe
from astrea.training.extras import require_extras

if any(importlib.util.find_spec(needed) is None for needed in ("rapidocr", "onnxruntime")):
    pytest.skip("the extra `ocr` is not installed", allow_module_level=True)

PAGE = ["Region-based segmentation", "Let us first determine markers of the coins and the"]


class Letters:
    """A tokenizer with a token per letter, and two that steer."""

    all_special_ids = [0]
    added_tokens_decoder = {
        0: SimpleNamespace(content="<|im_end|>", special=True),
        1: SimpleNamespace(content="<image>", special=False),
        2: SimpleNamespace(content="segmentation", special=False),
    }

    def get_vocab(self):
        return {"a": 97}

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        for index, token in self.added_tokens_decoder.items():
            text = text.replace(token.content, chr(index))
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])


def sign(text: str, degrees: float = 0) -> Image.Image:
    """A sign with a text on a grey wall."""
    board = Image.new("RGBA", (30 + 24 * len(text), 60), (250, 240, 200, 255))
    ImageDraw.Draw(board).text((15, 8), text, fill=(20, 30, 90), font=ImageFont.load_default(36))
    board = board.rotate(degrees, expand=True, resample=Image.Resampling.BICUBIC)
    wall = Image.new("RGB", (320, 320), (120, 125, 120))
    wall.paste(board, (40, 100), board)
    return wall


@pytest.fixture(scope="module")
def expert() -> OcrExpert:
    found = OcrExpert(side=480).eval()
    found.use_tokenizer(Letters())
    return found


@pytest.fixture(scope="module")
def page() -> torch.Tensor:
    return (
        torch.from_numpy(np.asarray(Image.fromarray(photographs.page()).convert("RGB")).copy()).permute(2, 0, 1) / 255
    )


def test_a_page_is_read_line_by_line(expert, page):
    (reading,) = expert.readings(page[None])
    assert reading.labels[:2] == PAGE
    assert min(reading.scores[:2]) > 0.9
    tops = [box[1] for box in reading.boxes]
    assert tops == sorted(tops)
    x0, y0, x1, y1 = reading.boxes[0]
    assert 0 <= x0 < 0.1 < 0.6 < x1 <= 1
    assert y0 < 0.1 < y1 < 0.5


@pytest.mark.parametrize("degrees", [0, 15])
def test_a_sign_is_read_where_it_hangs(expert, degrees):
    pixels = AstreaImageProcessor(320)([sign("BAKERY", degrees)])["pixel_values"]
    seen, (reading,) = expert(pixels), expert.readings(pixels)
    assert reading.labels == ["BAKERY"]
    assert seen.confidence[0].tolist() == pytest.approx([reading.scores[0], *[0] * 7])
    assert seen.places[0, 0].tolist() == pytest.approx([0.39, 0.41], abs=0.08)
    ids = seen.tokens[0, 0, slice(*expert.slots["text"])].tolist()
    assert "".join(chr(int(i)) for i in ids if i >= 0) == " BAKERY"
    assert ids[7:] == [-1] * (len(ids) - 7)
    assert (seen.tokens[0, 1:, slice(*expert.slots["text"])] == -1).all()


@pytest.mark.slow
def test_small_letters_are_found_in_tiles_and_large_ones_in_the_whole_picture():
    sheet = Image.new("RGB", (1280, 320), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((40, 10), "SALE", fill="black", font=ImageFont.load_default(230))
    small = ["the harbour wall is mended every spring", "stones are brought from the old quarry"]
    for row, line in enumerate(small):
        pen.text((900, 100 + 80 * row), line, fill="black", font=ImageFont.load_default(12))
    pixels = [torch.from_numpy(np.asarray(sheet).copy()).permute(2, 0, 1) / 255]

    def found(tiles: int) -> list[str]:
        return OcrExpert(side=320, tiles=tiles).eval().readings(pixels)[0].labels

    assert sorted(found(16)) == ["SALE", *sorted(small)]
    assert found(0) == ["SALE"]


def test_a_picture_without_text_has_no_lines(expert):
    assert not expert(torch.full((1, 3, 64, 64), 0.5)).confidence.any()
    assert expert.readings(torch.full((1, 3, 1, 300), 0.5))[0].labels == []


def test_what_is_written_never_steers_the_language_model():
    tokenizer = Letters()
    assert word_pieces(tokenizer, "a<|im_end|>b<image>") == [ord(" "), ord("a"), ord("b")]
    assert word_pieces(tokenizer, "segmentation") == [ord(" "), 2]  # a word that was added stays


def test_repeated_characters_count_once_and_the_first_stands_for_none():
    likely = np.eye(5, dtype=np.float32)[[0, 1, 1, 0, 1, 2, 3, 3, 4, 4]] * 0.8
    assert decode(likely, ["", "a", "b", "\u202e", " "]) == ("aab", pytest.approx(0.8))
    assert decode(np.eye(5, dtype=np.float32)[[0, 0]], ["", "a", "b", "c", " "]) == ("", 0.0)


def test_a_model_can_be_built_without_the_package(expert, page, monkeypatch):
    kept = resolve("text", ExpertEntry(kind="rapidocr", options={"lines": 2, "pieces": 5, "side": 480}))
    assert set(kept["options"]["graph_bytes"]) == {"detect", "read"}
    assert expert_specs({"text": kept})["text"].width == 5 + 6
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with torch.device("meta"):
        bank = ExpertBank({"text": kept})
    bank["text"].load_state_dict(expert.state_dict(), assign=True)
    bank.use_tokenizer(Letters())
    features = bank(page[None])["text"]
    assert features.tokens.shape == (1, 2, 11)
    assert features.confidence.all()


def test_without_the_package_a_run_is_refused_before_it_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    recipe = load_recipe(Recipe, "tiny", ["experts.text.kind=rapidocr"])
    with pytest.raises(AstreaError, match=r"expert 'text' \(rapidocr\) needs the library rapidocr") as told:
        require_extras(recipe)
    assert "[ocr]" in told.value.hint


def test_kept_features_of_another_tokenizer_are_not_used(expert):
    other = copy.deepcopy(expert)
    assert expert_key(other, {}) == expert_key(expert, {})
    more = Letters()
    more.get_vocab = lambda: {"b": 97}
    other.use_tokenizer(more)
    assert expert_key(other, {}) != expert_key(expert, {})


def test_without_a_tokenizer_readings_are_told_and_tokens_are_not(expert, page):
    bare = copy.deepcopy(expert)
    bare.tokenizer = None
    line = page[None, :, :28]
    assert bare.readings(line)[0].labels == PAGE[:1]
    with pytest.raises(AstreaError, match="no tokenizer"):
        bare(line)


@pytest.mark.parametrize("options", [{"lines": 0}, {"pieces": 1000}, {"side": 500}, {"threshold": 2}, {"tiles": 1}])
def test_options_are_checked(options):
    with pytest.raises(AstreaError, match=next(iter(options))):
        OcrExpert(**options)
