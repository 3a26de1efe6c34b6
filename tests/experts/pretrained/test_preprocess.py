"""Preprocessing in torch against each checkpoint's own image processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given
from hypothesis import strategies as st

from astrea.common.errors import AstreaError
from astrea.experts.pretrained.preprocess import USUAL, Preprocess, read_preprocess
from astrea.experts.pretrained.source import read_processor_json
from expert_builders import DINOV3, PROCESSORS

STEP = 1.5 / 255
"""Image processors round to 8 bits after each of two passes; one such step in values of 0..1 before normalising."""


def picture(side: int) -> np.ndarray:
    """Blocks and a fine pattern (side, side, 3)."""
    rng = np.random.default_rng(side)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = np.kron(coarse, np.ones((side // 8 + 1, side // 8 + 1, 1), np.uint8))[:side, :side]
    return np.where(rng.random((side, side, 1)) < 0.1, 255 - whole, whole)


def as_pixels(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float().div(255).unsqueeze(0)


def unpatched(values: torch.Tensor, patch: int) -> torch.Tensor:
    """SigLIP 2's list of patches (B, N, P) as a picture."""
    side = int(values.shape[1] ** 0.5)
    return values.view(-1, side, side, patch, patch, 3).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


@pytest.mark.parametrize("side", [64, 50, 200])
@pytest.mark.parametrize("architecture", [name for name in PROCESSORS if name not in ("vit_plain", "rt_detr")])
def test_it_is_the_image_processors(architecture, side, checkpoint):
    folder = checkpoint(architecture)
    name, _ = PROCESSORS[architecture]
    reference = getattr(transformers, name).from_pretrained(folder)
    kept = {"max_num_patches": 16} if architecture == "siglip2" else {}
    wanted = torch.as_tensor(np.array(reference(images=picture(side), return_tensors="pt", **kept)["pixel_values"]))
    if architecture == "siglip2":
        wanted = unpatched(wanted, 8)
    usual = next(key for key in USUAL if name == f"{key}ImageProcessorPil")
    prepared = read_preprocess(read_processor_json(folder), usual)
    found = prepared(as_pixels(picture(side)))
    assert found.shape == wanted.shape
    step = STEP * prepared.scale / min(prepared.std)
    assert (found - wanted).abs().max() <= step
    assert (found - wanted).abs().mean() <= step / 3


def test_dinov3_resizes_in_floats():
    """Its processor needs torchvision, which scales first and then resizes with the filter that torch has."""
    pixels = as_pixels(picture(64))
    mean, std = (torch.tensor(DINOV3[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    wanted = (F.interpolate(pixels, (32, 32), mode="bilinear", antialias=True) - mean) / std
    torch.testing.assert_close(read_preprocess(DINOV3, "DINOv3ViT")(pixels), wanted)


@pytest.mark.parametrize(
    "name",
    [name for name in USUAL if name not in ("DINOv3ViT", "Siglip2")],
)
def test_what_a_file_leaves_out_is_as_usual(name):
    """Old files say little; transformers then goes by the processor's own defaults."""
    reference = getattr(transformers, f"{name}ImageProcessorPil")()
    prepared = read_preprocess({}, name)
    named = read_preprocess({"image_processor_type": f"{name}ImageProcessor"}, "Sam")
    assert prepared == named
    found = prepared(as_pixels(picture(64)))
    wanted = reference(images=picture(64), return_tensors="pt")["pixel_values"]
    wanted = torch.as_tensor(np.array(wanted))
    assert found.shape == wanted.shape
    # Enlarging over ten times leaves whole runs of pixels rounded alike, hence the mean.
    assert (found - wanted).abs().mean() <= STEP * prepared.scale / min(prepared.std)


def test_another_side_keeps_the_crops_share():
    described = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    prepared = read_preprocess(described, "CLIP", image_size=448)
    assert (prepared.resize, prepared.crop) == ((512, 512), (448, 448))
    assert read_preprocess({"size": 800}, "Detr", image_size=96).side == (96, 96)


def test_old_spellings_of_sizes():
    assert read_preprocess({"size": 800, "max_size": 1333}, "Detr").resize == (800, 800)
    assert read_preprocess({"size": 224, "crop_size": 224}, "CLIP").side == (224, 224)
    assert read_preprocess({"size": {"shortest_edge": 800, "longest_edge": 600}}, "Detr").resize == (600, 600)
    assert read_preprocess({"do_resize": False}, "ViT").side is None
    assert read_preprocess({"size": {"shortest_edge": 384}}, "ConvNext").crop is None
    assert read_preprocess({"size": {"height": 32, "width": 64}}, "ViT").side == (32, 64)


def test_a_crop_larger_than_the_picture_is_black_beyond_it():
    prepared = Preprocess(resize=(4, 4), crop=(6, 6))
    seen = prepared(torch.ones(1, 3, 4, 4))
    assert seen.shape == (1, 3, 6, 6)
    assert seen.sum() == 3 * 16
    assert prepared.to_picture(torch.tensor([0.5, 0.0])).tolist() == [0.5, 0.0]


BAD = {
    "size in words": ({"size": "large"}, "'size'"),
    "no side": ({"size": {"edge": 3}}, "'size'"),
    "a huge side": ({"size": 10**9}, "'size'"),
    "lanczos": ({"resample": 1}, "'resample' 1"),
    "a wrong mean": ({"image_mean": [0.5, 0.5]}, "'image_mean'"),
    "no deviation": ({"image_std": [0.0, 1.0, 1.0]}, "cannot be used"),
    "a factor of nothing": ({"rescale_factor": 0}, "'rescale_factor'"),
    "padding": ({"do_pad": True, "pad_size": {"height": 999, "width": 999}}, "'pad_size'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_named(case):
    described, said = BAD[case]
    with pytest.raises(AstreaError, match=said) as caught:
        read_preprocess(described, "Detr")
    assert caught.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["height", "width", "x"]), inner),
    max_leaves=6,
)
KEYS = ("size", "crop_size", "resample", "image_mean", "image_std", "do_center_crop", "rescale_factor", "crop_pct")


@given(st.dictionaries(st.sampled_from(KEYS), JSON), st.sampled_from(sorted(USUAL)))
def test_hostile_files_are_read_or_refused(described, usual):
    try:
        prepared = read_preprocess(described, usual)
    except AstreaError:
        return
    assert prepared.side is None or max(prepared.side) <= 4096
