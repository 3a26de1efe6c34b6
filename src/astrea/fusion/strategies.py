"""Every fusion strategy by the name that recipes use."""

from __future__ import annotations

from collections.abc import Mapping

from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.protocol import FusionStrategy

STRATEGIES: Mapping[str, type[FusionStrategy]] = {
    "astrea": AstreaFusion,
}
