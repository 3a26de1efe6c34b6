"""The interface between data and training: samples for batches, whatever the source of the data.

Letters: B samples of a batch, P pictures among them, R packed rows, N pictures as the rows show them, S questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from astrea.data.packing import PackedBatch, Packer
from astrea.experts.protocol import ExpertFeatures

Reword = Callable[[str], str]
"""A text said otherwise."""


@dataclass(frozen=True, slots=True)
class Samples:
    """B samples, drawn for one batch.

    names: of the samples, for messages. ids: (B,) integers, equal where the first picture is the same. texts: captions
    of each sample's picture, at least one. first: (B,) which of the P pictures a sample shows first, -1 for a text
    without pictures. pictures: P. encode: the features of the pictures by all experts, or those named; every process
    has to call it, as they share the work. pixels: the pictures (P, 3, S, S) in 0..1, each process has its slice.
    numbers: (B,) the number of each sample's first text in `TrainingData.every_text`, or None. content: whatever
    `TrainingData.pack` needs. originals: the same slice of the pictures as they are, (3, H, W) each, or None where
    there are squares only.
    """

    names: Sequence[str]
    ids: Tensor
    texts: Sequence[Sequence[str]]
    first: Tensor
    pictures: int
    encode: Callable[..., dict[str, ExpertFeatures]]
    pixels: Callable[[], Tensor]
    numbers: Tensor | None
    content: Any
    originals: Callable[[], Sequence[Tensor] | None] = lambda: None


def sample_names(samples: Samples, most: int = 6) -> str:
    """The first few of some samples, for messages."""
    return ", ".join(samples.names[:most]) + (" ..." if len(samples.names) > most else "")


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples as the language model reads them.

    packed: R rows. groups: (R, S) which of `TrainingData.groups` a question belongs to; -1 where a row has no such
    question, or no picture. shown: (N,) which of the P pictures stand in the rows, in reading order. row: (N,) where.
    """

    packed: PackedBatch
    groups: Tensor
    shown: Tensor
    row: Tensor

    def shown_in(self, rows: slice) -> slice:
        """The pictures, of the N, that stand in some rows."""
        return slice(int((self.row < rows.start).sum()), int((self.row < rows.stop).sum()))

    @property
    def labelled(self) -> float:
        """Sum of the weights of all labels, by which their mean loss per token is divided."""
        return float(((self.packed.labels[:, 1:] != -100) * self.packed.label_weights[:, 1:]).sum())


class Ranks(Protocol):
    """The processes of a run as a data set sees them; see `astrea.training.distributed.Distributed`."""

    device: torch.device
    world: int

    @property
    def is_main(self) -> bool:
        """Whether this process prints messages."""

    def local_slice(self, count: int) -> slice:
        """The part of ``count`` rows that this process computes."""

    def gather(self, own: Tensor, count: int) -> Tensor:
        """All ``count`` rows, from the local slices of all processes."""


class TrainingData(Protocol):
    """An endless order of samples, a function of (position, seed) alone.

    Attributes:
        groups: kinds of questions, over which an expert's contribution is measured.
    """

    @property
    def names(self) -> Sequence[str]:
        """What things are called, in as many words as that takes ("fire engine"); none where the data does not say."""

    @property
    def withheld(self) -> Sequence[str]:
        """Names that training must not say, since it is measured how new they are to the model."""

    @property
    def groups(self) -> Sequence[str]:
        """Names of the groups of questions whose contributions are measured apart."""

    def draw(self, position: int, size: int, seed: int, *, pairs: bool = False) -> Samples:
        """Samples ``position .. position + size``.

        Args:
            pairs: every sample has a picture, and only the first one counts: what alignment reads.
        """

    def pack(
        self,
        packer: Packer,
        samples: Samples,
        which: Tensor,
        *,
        per_question: bool,
        reworded: Sequence[Reword | None] | None = None,
    ) -> Rows:
        """The samples' questions and answers in rows.

        Args:
            which: (B,) the text that is read of each sample.
            per_question: every question has a row of its own.
            reworded: per sample, what its texts are put through.
        """

    def more_pictures(self, samples: Samples, count: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """About ``count`` pictures, neighbours of which differ, as (samples, which of their pictures): further ones
        where their features are at hand, else those of ``samples`` again; none where that has fewer than two."""

    def scanned(self, seed: int) -> Iterable[str]:
        """Texts enough to know how common a word is."""

    def every_text(self) -> Sequence[Sequence[str]] | None:
        """The texts of all samples in a fixed order; None where they are too many to hold."""
