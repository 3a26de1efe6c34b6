"""The classes of the compact experts, by kind."""

from __future__ import annotations

from collections.abc import Mapping

from astrea.experts.bank import COMPACT as NAMES
from astrea.experts.bank import expert_class
from astrea.experts.protocol import Expert

COMPACT: Mapping[str, type[Expert]] = {kind: expert_class(kind, allow_import=False) for kind in NAMES}
"""In the order in which they are aligned: nearest to language first."""
