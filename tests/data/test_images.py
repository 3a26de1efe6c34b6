"""Every right image, whatever its mode, format and orientation, must come out as upright RGB; then, squares."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.data.images import load_image, to_square_array
from noise_images import encode, noise

ORIENTATION = 0x0112


def assert_rgb_equal(image: Image.Image, expected: Image.Image | np.ndarray) -> None:
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_by_path_bytes_and_object(tmp_path: Path, format_name: str) -> None:
    original = noise()
    path = tmp_path / "image.dat"  # the ending does not count
    path.write_bytes(encode(original, format_name, **({"lossless": True} if format_name == "WEBP" else {})))
    for source in (path, str(path), path.read_bytes(), Image.open(path), original):
        assert_rgb_equal(load_image(source), original)


def test_result_is_a_new_image() -> None:
    original = noise()
    result = load_image(original)
    result.putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) == noise().getpixel((0, 0))


def test_one_pixel() -> None:
    assert_rgb_equal(load_image(encode(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")), [[[9, 8, 7]]])
    assert to_square_array(Image.new("RGB", (1, 1), (9, 8, 7)), 4).tolist() == [[[9, 8, 7]] * 4] * 4


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, format_name: str) -> None:
    upright = noise()
    stored = {  # how a camera held that way stores the upright scene, by definition of the EXIF tag
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: a.swapaxes(0, 1)[::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: lambda a: a.swapaxes(0, 1)[:, ::-1],
    }[orientation](np.asarray(upright))  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), format_name, exif=exif)
    once = load_image(data)
    assert_rgb_equal(once, upright)
    assert_rgb_equal(load_image(once), upright)  # not turned a second time
    assert_rgb_equal(load_image(Image.open(io.BytesIO(data))), upright)


@pytest.mark.filterwarnings("ignore")
def test_orientation_in_jpeg_and_damaged_exif() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert load_image(encode(noise(24, 16), "JPEG", exif=exif)).size == (16, 24)
    for block in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", exif.tobytes()[:-7]):
        assert load_image(encode(noise(24, 16), "JPEG", exif=block)).size in ((24, 16), (16, 24))


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_only(format_name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = encode(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert_rgb_equal(load_image(data), frames[0])


def test_alpha_lies_over_white() -> None:
    rgba = Image.new("RGBA", (2, 1))
    rgba.putdata([(0, 0, 0, 0), (200, 0, 100, 255)])
    expected = [[[255, 255, 255], [200, 0, 100]]]
    assert_rgb_equal(load_image(encode(rgba, "PNG")), expected)
    assert_rgb_equal(load_image(rgba.convert("RGBa")), expected)
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert_rgb_equal(load_image(half), [[[127, 127, 127]]])
    grey = Image.new("LA", (2, 1))
    grey.putdata([(0, 0), (70, 255)])
    for image in (encode(grey, "PNG"), grey, grey.convert("La")):
        assert_rgb_equal(load_image(image), [[[255] * 3, [70] * 3]])


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert_rgb_equal(load_image(encode(image, "PNG")), [[[10, 20, 30], [40, 50, 60]]])
    for transparency in (0, b"\x00\xff"):
        data = encode(image, "PNG", transparency=transparency)
        assert_rgb_equal(load_image(data), [[[255, 255, 255], [40, 50, 60]]])
    assert_rgb_equal(load_image(encode(image, "GIF", transparency=0)), [[[255, 255, 255], [40, 50, 60]]])


def test_colour_key_transparency() -> None:
    image = Image.new("RGB", (2, 1))
    image.putdata([(1, 2, 3), (4, 5, 6)])
    assert_rgb_equal(load_image(encode(image, "PNG", transparency=(1, 2, 3))), [[[255] * 3, [4, 5, 6]]])
    deep = Image.fromarray(np.array([[300, 65535, 512]], dtype=np.uint16))
    assert_rgb_equal(load_image(encode(deep, "PNG", transparency=300)), [[[255] * 3, [255] * 3, [2] * 3]])


def test_grey_modes() -> None:
    assert_rgb_equal(load_image(Image.new("1", (1, 1), 1)), [[[255] * 3]])
    assert_rgb_equal(load_image(encode(Image.new("L", (1, 1), 77), "PNG")), [[[77] * 3]])
    deep = Image.fromarray(np.array([[0, 255, 256, 40000, 65535]], dtype=np.uint16))
    for source in (deep, encode(deep, "PNG"), encode(deep, "TIFF")):
        assert np.asarray(load_image(source))[0, :, 0].tolist() == [0, 0, 1, 156, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 20.0, 255.0], [0, 20, 255]),
        ([0.0, 25600.0, 65535.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([np.nan, 0.5, np.inf], [0, 128, 128]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
        ([3e38, -3e38, 0.0], [255, 0, 128]),
    ],
)
def test_float_modes(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    for source in (image, encode(image, "TIFF")):
        assert np.asarray(load_image(source))[0, :, 0].tolist() == expected


def test_integer_mode() -> None:
    for values, expected in (([0, 1, 200], [0, 1, 200]), ([0, 512, 65535], [0, 2, 255]), ([-5, 5, 5], [0, 255, 255])):
        image = Image.fromarray(np.array([values], dtype=np.int32))
        assert np.asarray(load_image(image))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "RGBX", "PA"])
def test_other_colour_modes(mode: str) -> None:
    assert load_image(Image.new(mode, (3, 2))).mode == "RGB"


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
    assert np.abs(np.asarray(load_image(encode(red, "JPEG"))).astype(int) - [255, 0, 0]).max() <= 4


# Squares -------------------------------------------------------------------------------------------------------------


def test_square_identity() -> None:
    image = noise(32, 32)
    array = to_square_array(image, 32)
    np.testing.assert_array_equal(array, np.asarray(image))
    array[0] = 0  # the caller's own


@pytest.mark.parametrize("size", [1, 2, 17, 224])
@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1), (1, 1), (3, 2), (640, 480)])
def test_square_shapes(shape: tuple[int, int], size: int) -> None:
    array = to_square_array(noise(*shape), size)
    assert array.shape == (size, size, 3)
    assert array.dtype == np.uint8


def test_letterbox_keeps_proportions_and_pads_with_the_edge_mean() -> None:
    image = Image.new("RGB", (40, 20), (100, 50, 25))
    image.paste((200, 150, 125), (1, 1, 39, 19))
    array = to_square_array(image, 40)
    np.testing.assert_array_equal(array[10:30], np.asarray(image))
    assert (array[:10] == (100, 50, 25)).all()
    assert (array[30:] == (100, 50, 25)).all()


def test_square_of_other_modes_and_bad_sizes() -> None:
    assert to_square_array(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), 2).min() == 255
    for image, size in ((noise(), 0), (noise(), -1), (Image.new("RGB", (0, 4)), 8)):
        with pytest.raises(AstreaError):
            to_square_array(image, size)
