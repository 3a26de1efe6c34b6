"""Every routing policy by the name that recipes use."""

from __future__ import annotations

from collections.abc import Mapping

from astrea.fusion.routing.adapters import Adapters
from astrea.fusion.routing.cascade import Cascade
from astrea.fusion.routing.correctness import Correctness
from astrea.fusion.routing.grouped import Grouped
from astrea.fusion.routing.heads import Heads
from astrea.fusion.routing.policy import Policy
from astrea.fusion.routing.primary import Primary
from astrea.fusion.routing.random_experts import RandomExperts
from astrea.fusion.routing.scope import Scope
from astrea.fusion.routing.shared import Shared
from astrea.fusion.routing.soft import Soft
from astrea.fusion.routing.top_k import TopK
from astrea.fusion.routing.top_p import TopP
from astrea.fusion.routing.uncertainty import Uncertainty

POLICIES: Mapping[str, type[Policy]] = {
    "soft": Soft,
    "top_k": TopK,
    "top_p": TopP,
    "grouped": Grouped,
    "shared": Shared,
    "random": RandomExperts,
    "uncertainty": Uncertainty,
    "cascade": Cascade,
    "correctness": Correctness,
    "scope": Scope,
    "primary": Primary,
    "heads": Heads,
    "adapters": Adapters,
}
