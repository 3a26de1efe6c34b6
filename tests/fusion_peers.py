"""What the tests of peers (MoAI, MoVA, the spatial sampler) build: the strategy, a matrix of experts, questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout

WIDTH = 8


@dataclass(frozen=True)
class Peer:
    """A strategy for a layout. ``options``: of its constructor, unless a test gives others. ``batch``: pictures."""

    strategy: type[nn.Module]
    layout: Layout
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 3

    @property
    def owner(self) -> torch.Tensor:
        """The expert of every token."""
        counts = self.layout.counts
        return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    def awake(self, *, noise: float = 0.4, **options: Any) -> Any:
        """The strategy with weights large enough that no zero start hides a part."""
        torch.manual_seed(0)
        made = self.strategy(self.layout, **self.options | options)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * noise)
        return made

    def matrix(self, batch: int | None = None) -> ExpertMatrix:
        """Every expert is there; slot 1 of the first picture is empty."""
        shape = (batch or self.batch, len(self.owner))
        generator = torch.Generator().manual_seed(1)
        valid = torch.ones(shape, dtype=torch.bool)
        valid[0, 1] = False
        tokens = torch.randn(*shape, WIDTH, generator=generator)
        places = torch.rand(*shape, 2, generator=generator)
        return ExpertMatrix(tokens, valid.float(), valid, self.without(batch=batch), self.owner, places)

    def questions(self, batch: int | None = None, count: int = 1) -> torch.Tensor:
        """The same question ``count`` times for each picture, (B, S, D)."""
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch or self.batch, 1, WIDTH, generator=generator).expand(-1, count, -1)

    def without(self, *experts: int, batch: int | None = None) -> torch.Tensor:
        """Which experts are present, (B, E), when some are not."""
        present = torch.ones(batch or self.batch, len(self.layout.counts), dtype=torch.bool)
        present[:, list(experts)] = False
        return present
