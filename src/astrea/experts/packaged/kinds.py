"""The kinds of experts whose weights come from packages, and the extras that bring what this package lacks."""

from __future__ import annotations

from collections.abc import Mapping

PACKAGED: Mapping[str, str] = {
    "efficientnet_lite0": "astrea.experts.packaged.efficientnet:EfficientNetExpert",
    "centernet": "astrea.experts.packaged.centernet:CenterNetExpert",
}
"""Kind -> its class. What they declare may depend on their options."""

EXTRAS: Mapping[str, str] = {"efficientnet_lite0": "photo"}
"""Kind -> the extra that it needs where its weights are read: when a model is assembled, not when one is loaded."""
