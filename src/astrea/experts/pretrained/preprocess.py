"""From Astrea's one square picture to what a checkpoint was trained on: resize, crop, rescale, normalise, in torch.

A checkpoint's own image processor works picture by picture on 8-bit values; here a batch is resized in floats, which
differs by that rounding only (see the tests). All of these processors give a square for a square.

Letters: B batch, S side of Astrea's picture, H W height and width that the checkpoint is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from astrea.common.errors import AstreaError

Side = Annotated[int, Field(ge=1, le=4096)]
Triple = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]

RESAMPLE: dict[int, Literal["nearest", "bilinear", "bicubic"]] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's codes of the filters that torch has too."""

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: tuple[Triple, Triple] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
USUAL: dict[str, tuple[Mapping[str, int], int, tuple[Triple, Triple]]] = {
    "Detr": ({"shortest_edge": 800, "longest_edge": 1333}, 2, IMAGENET),
    "RTDetr": ({"height": 640, "width": 640}, 2, IMAGENET),
    "Yolos": ({"shortest_edge": 800, "longest_edge": 1333}, 2, IMAGENET),
    "GroundingDino": ({"shortest_edge": 800, "longest_edge": 1333}, 2, IMAGENET),
    "Segformer": ({"height": 512, "width": 512}, 2, IMAGENET),
    "Mask2Former": ({"shortest_edge": 800, "longest_edge": 1333}, 2, IMAGENET),
    "Eomt": ({"shortest_edge": 640, "longest_edge": 640}, 2, IMAGENET),
    "Sam": ({"longest_edge": 1024}, 2, IMAGENET),
    "ViT": ({"height": 224, "width": 224}, 2, HALF),
    "Bit": ({"shortest_edge": 224}, 3, CLIP),
    "DINOv3ViT": ({"height": 224, "width": 224}, 2, IMAGENET),
    "Siglip": ({"height": 224, "width": 224}, 3, HALF),
    "Siglip2": ({"height": 256, "width": 256}, 2, HALF),
    "CLIP": ({"shortest_edge": 224}, 3, CLIP),
    "ConvNext": ({"shortest_edge": 384}, 3, HALF),
    "Blip": ({"height": 384, "width": 384}, 3, CLIP),
}
"""Size, filter, mean and deviation of the processors that the known architectures use, where a file leaves them out."""


class Preprocess(BaseModel):
    """One checkpoint's way of looking at a square picture.

    resize: height and width; None = as it comes. crop: height and width cut from the middle, black beyond the edge.
    scale: factor on values in 0..1 before ``mean`` and ``std``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: tuple[Side, Side] | None
    crop: tuple[Side, Side] | None = None
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    scale: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)

    @property
    def side(self) -> tuple[int, int] | None:
        """Height and width that the checkpoint is given."""
        return self.crop or self.resize

    def __call__(self, pixels_B3SS: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in 0..1 -> (B, 3, H, W) as the checkpoint wants them."""
        x = pixels_B3SS
        if self.resize is not None and tuple(x.shape[-2:]) != self.resize:
            if self.resample == "nearest":
                x = F.interpolate(x, self.resize, mode="nearest-exact")
            else:
                # Bicubic oversteps at edges. 8-bit pictures cannot, and Pillow makes one of every pass.
                x = F.interpolate(x, (x.shape[-2], self.resize[1]), mode=self.resample, antialias=True).clamp(0, 1)
                x = F.interpolate(x, self.resize, mode=self.resample, antialias=True).clamp(0, 1)
        if self.crop is not None:
            top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], self.crop, strict=True))
            bottom, right = x.shape[-2] - top - self.crop[0], x.shape[-1] - left - self.crop[1]
            x = F.pad(x, (-left, -right, -top, -bottom))
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (x * self.scale - mean) / std

    def to_picture(self, places: Tensor) -> Tensor:
        """Places (..., 2), x and y as shares of what the checkpoint sees, as shares of the whole picture."""
        if self.crop is None or self.resize is None:
            return places
        share = places.new_tensor([self.crop[1] / self.resize[1], self.crop[0] / self.resize[0]])
        return (0.5 + (places - 0.5) * share).clamp(0, 1)


def read_preprocess(described: Mapping[str, Any], usual: str, *, image_size: int | None = None) -> Preprocess:
    """What a checkpoint's preprocessor_config.json says, for a square picture.

    Args:
        usual: the processor of this architecture, a key of `USUAL`, for what the file leaves out.
        image_size: another side that the checkpoint is to be given; a crop shrinks or grows with it.

    Raises:
        AstreaError: a size, filter or statistic that cannot be used; names the key.
    """
    named = str(described.get("image_processor_type") or described.get("feature_extractor_type") or "")
    usual = next((name for name in USUAL if named.startswith((f"{name}Image", f"{name}Feature"))), usual)
    usual_size, usual_filter, (usual_mean, usual_std) = USUAL[usual]
    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    if _flag(described, "do_resize", True):
        resize = _square(described.get("size") or usual_size, described, usual)
    if _flag(described, "do_center_crop", usual in ("CLIP", "Bit")):
        crop = _square(described.get("crop_size") or {"height": 224, "width": 224}, described, "")
    if usual == "ConvNext" and resize is not None and resize[0] < 384:
        # As transformers does: small pictures are cut from the middle of a larger one.
        whole = int(resize[0] / _number(described, "crop_pct", 224 / 256))
        resize, crop = (whole, whole), resize
    pad = described.get("pad_size")
    seen = crop or resize
    if _flag(described, "do_pad", False) and pad and seen and _square(pad, described, "") != seen:
        raise AstreaError(f"'pad_size' {pad} is not the size {seen}", "use a checkpoint that sees the whole square")
    if image_size is not None:
        if crop is not None and resize is not None:
            grow = image_size / crop[0]
            resize = (round(resize[0] * grow), round(resize[1] * grow))
            crop = (image_size, image_size)
        else:
            resize = (image_size, image_size)
    code = described.get("resample", usual_filter)
    if not isinstance(code, int) or code not in RESAMPLE:
        raise AstreaError(f"'resample' {code!r} is no filter known here", "2 is bilinear, 3 is bicubic, 0 is nearest")
    normalised = _flag(described, "do_normalize", usual != "RTDetr")
    scaled = _flag(described, "do_rescale", True)
    found = {
        "resize": resize,
        "crop": crop,
        "resample": RESAMPLE[code],
        "scale": 255 * _number(described, "rescale_factor", 1 / 255) if scaled else 255.0,
        "mean": _triple(described, "image_mean", usual_mean) if normalised else (0.0, 0.0, 0.0),
        "std": _triple(described, "image_std", usual_std) if normalised else (1.0, 1.0, 1.0),
    }
    try:
        return Preprocess.model_validate(found)
    except ValueError as error:
        raise AstreaError(f"the preprocessing {found} cannot be used", "sides go from 1 to 4096 pixels") from error


def _square(size: object, described: Mapping[str, Any], usual: str) -> tuple[int, int]:
    """What a processor makes of a square picture, given its ``size`` entry in any of its spellings."""
    if usual == "Siglip2":
        patch = int(_number(described, "patch_size", 16))
        side = patch * math.isqrt(int(_number(described, "max_num_patches", 256)))
        return side, side
    if isinstance(size, Mapping):
        both = [size.get("height"), size.get("width")]
        if None in both:
            edges = [size[key] for key in ("shortest_edge", "longest_edge", "max_height", "max_width") if size.get(key)]
            both = [min(edges, default=None)] * 2
    else:
        both = [size, size]
    if not all(isinstance(side, int) and 1 <= side <= 4096 for side in both):
        raise AstreaError(f"'size' {size!r} gives no side in pixels", "set the option image_size, or correct the file")
    height, width = (int(side) for side in both)  # type: ignore[arg-type]
    if usual == "Yolos" and isinstance(size, Mapping) and "shortest_edge" in size:
        height, width = height - height % 16 or 16, width - width % 16 or 16
    if usual == "Mask2Former" and (step := int(_number(described, "size_divisor", 32))) > 0:
        height, width = math.ceil(height / step) * step, math.ceil(width / step) * step
    return height, width


def _flag(described: Mapping[str, Any], key: str, usual: bool) -> bool:
    value = described.get(key)
    return usual if value is None else bool(value)


def _number(described: Mapping[str, Any], key: str, usual: float) -> float:
    value = described.get(key)
    value = usual if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise AstreaError(f"{key!r} is {value!r}", "it must be a positive number")
    return value


def _triple(described: Mapping[str, Any], key: str, usual: Triple) -> Triple:
    value = described.get(key)
    value = usual if value is None else value
    values = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise AstreaError(f"{key!r} is {value!r}", "it must be three numbers, one per colour")
    red, green, blue = map(float, values)
    return red, green, blue
