"""Every fusion strategy by the name that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from astrea.common.errors import AstreaError
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.peers.average import UniformAverage
from astrea.fusion.peers.channel_concat import ChannelConcat
from astrea.fusion.peers.moai import MoAI
from astrea.fusion.peers.mova import MoVA
from astrea.fusion.peers.sequence_concat import SequenceConcat
from astrea.fusion.peers.single import SingleExpert
from astrea.fusion.peers.spatial_sampler import SpatialSampler
from astrea.fusion.peers.switch import TopOneSwitch
from astrea.fusion.protocol import FusionStrategy, Layout

STRATEGIES: Mapping[str, Callable[..., FusionStrategy]] = {
    "astrea": AstreaFusion,
    "single": SingleExpert,
    "average": UniformAverage,
    "sequence_concat": SequenceConcat,
    "channel_concat": ChannelConcat,
    "switch": TopOneSwitch,
    "mova": MoVA,
    "moai": MoAI,
    "spatial_sampler": SpatialSampler,
}


def build_strategy(name: str, layout: Layout, options: Mapping[str, Any]) -> FusionStrategy:
    """The strategy of a name.

    Raises:
        AstreaError: unknown name, or options that its constructor does not take.
    """
    if name not in STRATEGIES:
        raise AstreaError(f"unknown fusion strategy {name!r}", f"known: {', '.join(STRATEGIES)}")
    try:
        return STRATEGIES[name](layout, **options)
    except TypeError as error:
        raise AstreaError(f"fusion strategy {name!r}: {error}", "check model.options in the recipe") from error
