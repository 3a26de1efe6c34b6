from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from astrea.experts.drawing import draw_readings
from astrea.experts.protocol import Reading

PICTURE = Image.fromarray(np.full((64, 64, 3), 120, np.uint8))
PANEL, GAP, TITLE = 192, 12, 22


def panel(sheet: Image.Image, index: int, width: int = PANEL) -> np.ndarray:
    left = GAP + index * (width + GAP)
    return np.asarray(sheet)[GAP:-GAP, left : left + width]


def picture_of(sheet: Image.Image, index: int) -> np.ndarray:
    return panel(sheet, index)[TITLE : TITLE + PANEL]


def readings() -> dict[str, Reading]:
    mask = torch.zeros(64, 64, dtype=torch.long)
    mask[10:30, 10:30] = 1
    boxes = [(10 / 64, 10 / 64, 30 / 64, 30 / 64), (0.5, 0.5, 0.9, 0.8)]
    return {
        "captioning": Reading("captioning", labels=["a", "cat"], scores=[0.9, 0.6], caption="a cat"),
        "classification": Reading("classification", labels=["cat", "night"], scores=[0.8, 0.3]),
        "segmentation": Reading("segmentation", boxes[:1], ["red animal"], [0.7], mask=mask),
        "detection": Reading("detection", boxes, ["cat", "object"], [0.9, 0.4]),
    }


def test_one_panel_per_expert_beside_the_picture():
    sheet = draw_readings(PICTURE, readings())
    assert sheet.mode == "RGB"
    assert sheet.width == 5 * (PANEL + GAP) + GAP
    assert (picture_of(sheet, 0) == 120).all()
    assert len({panel(sheet, index).tobytes() for index in range(5)}) == 5


def test_without_experts_only_the_picture():
    assert draw_readings(PICTURE, {}).width == PANEL + 2 * GAP


def test_the_same_readings_give_the_same_pixels_and_leave_the_picture_alone():
    picture = PICTURE.copy()
    first, second = draw_readings(picture, readings()), draw_readings(picture, readings())
    assert first.tobytes() == second.tobytes()
    assert picture.tobytes() == PICTURE.tobytes()


def test_boxes_are_framed_where_they_are():
    box = Reading("detection", [(0.25, 0.5, 0.75, 0.9)], ["x"], [1.0])
    drawn = picture_of(draw_readings(PICTURE, {"detection": box}), 1)
    changed = (drawn != 120).any(-1)
    assert changed[130, 46:52].any()  # the left side, at a quarter of 192
    assert changed[130, 140:147].any()  # the right side
    assert not changed[130, 60:130].any()  # nothing inside
    assert not changed[130, :40].any()


def test_a_region_is_tinted_and_the_rest_dimmed():
    mask = torch.zeros(32, 32, dtype=torch.long)  # of another size than the picture
    mask[16:] = 1
    drawn = picture_of(draw_readings(PICTURE, {"segmentation": Reading("segmentation", mask=mask)}), 1)
    above, below = drawn[:90], drawn[100:]
    assert (above == 90).all()
    assert below[..., 2].mean() > 150  # light blue over grey


def test_regions_have_colours_of_their_own():
    mask = torch.arange(64).div(8, rounding_mode="floor").expand(64, 64) + 1  # eight stripes
    drawn = picture_of(draw_readings(PICTURE, {"segmentation": Reading("segmentation", mask=mask)}), 1)
    assert len({tuple(drawn[96, column]) for column in range(12, 192, 24)}) == 8


def test_bars_are_as_long_as_the_scores():
    def lit(score: float) -> int:
        sheet = draw_readings(PICTURE, {"tags": Reading("tags", labels=["cat"], scores=[score])})
        row = panel(sheet, 1)[TITLE : TITLE + 17, 20:160]
        return int((row == (92, 158, 255)).all(-1).any(0).sum())

    assert lit(0.0) == 0
    assert 0 < lit(0.3) < lit(0.6) < lit(1.0)
    assert lit(7.0) == lit(1.0)
    assert lit(-1.0) == lit(math.nan) == 0


@pytest.mark.parametrize(
    ("size", "scale", "drawn"),
    [
        ((64, 64), None, (192, 192)),
        ((96, 48), None, (192, 96)),
        ((224, 224), None, (224, 224)),
        ((640, 480), None, (192, 144)),
        ((64, 64), 2, (128, 128)),
        ((1000, 3), None, (192, 1)),
    ],
)
def test_scale(size: tuple[int, int], scale: int | None, drawn: tuple[int, int]):
    picture = Image.new("RGB", size, (200, 10, 10))
    sheet = np.asarray(draw_readings(picture, {}, scale=scale))
    ys, xs = (sheet == (200, 10, 10)).all(-1).nonzero()
    assert (xs.max() - xs.min() + 1, ys.max() - ys.min() + 1) == drawn


def test_a_scale_below_one_is_refused():
    with pytest.raises(ValueError, match="scale is 0"):
        draw_readings(PICTURE, {}, scale=0)


def test_a_narrow_picture_still_leaves_room_for_text():
    sheet = draw_readings(Image.new("L", (4, 64)), readings())
    assert sheet.width >= 5 * 140


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_any_mode(mode: str):
    assert draw_readings(PICTURE.convert(mode), readings()).mode == "RGB"


@pytest.mark.parametrize(
    "reading",
    [
        Reading("x"),
        Reading("x", [(0.1, 0.1, 0.2, 0.2)]),
        Reading("x", [(0.9, 0.9, 0.1, 0.1)], ["turned"], [0.5]),
        Reading("x", [(-5.0, -5.0, 9.0, 9.0)], ["outside"], [0.5]),
        Reading("x", [(math.nan, 0.0, 1.0, 1.0)], ["nan"], [0.5]),
        Reading("x", [(0.5, 0.5, 0.5, 0.5)], ["a point"], [0.5]),
        Reading("x", [(0.1, 0.1, 0.9, 0.9)] * 40, ["many"] * 40, [0.5] * 40),
        Reading("x", labels=["no score", "another"], scores=[0.5]),
        Reading("x", labels=["l" * 10_000, "two\nlines", "\ud800\x00", ""], scores=[0.5] * 4),
        Reading("x", caption="w" * 5000),
        Reading("x", caption="word " * 60, labels=["else"], scores=[0.1]),
        Reading("x", caption=" \n "),
        Reading("x", mask=torch.full((7, 3), 1000, dtype=torch.long)),
        Reading("x", mask=torch.zeros(64, 64, dtype=torch.bool)),
    ],
)
def test_odd_readings_are_drawn(reading: Reading):
    sheet = draw_readings(PICTURE, {"an expert with a very long name indeed, longer than its panel": reading})
    assert sheet.width == 2 * (PANEL + GAP) + GAP
    assert sheet.height < 2000
