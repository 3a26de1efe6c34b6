"""Experts' outputs for pictures, each computed once: kept by the hash of the picture's file.

Letters: N pictures, S side of the square picture.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor

from astrea.data.fitted import FittedPicture
from astrea.experts.protocol import ExpertFeatures, Reading


class Experts(Protocol):
    """Whatever gives the features of pictures: an `ExpertBank`, or one in another process."""

    @property
    def names(self) -> Sequence[str]:
        """The experts' names, in order."""

    def takes_original(self, name: str) -> bool:
        """Whether an expert reads pictures as they are."""

    def __call__(
        self, pixels_N3SS: Tensor, names: Sequence[str] | None = None, originals: Sequence[Tensor] | None = None
    ) -> dict[str, ExpertFeatures]:
        """The features of every expert, or of those named; originals: the pictures as they are, (3, H, W) each."""

    def readings(
        self,
        pixels_N3SS: Tensor,
        originals: Sequence[Tensor] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Reading]]:
        """Per picture, what each expert shows to people, see `ExpertBank.readings`."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Picture:
    """A picture of a request. key: hash of its file. pixels: (3, S, S) in 0..1. original: the picture as it is, (3, H,
    W) bytes, where an expert reads those. size: its width and height; None = those of the square."""

    key: str
    pixels: Tensor
    original: Tensor | None = None
    size: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Of memory that it takes."""
        return sum(part.nbytes for part in (self.pixels, self.original) if part is not None)


def picture_of(key: str, fitted: FittedPicture) -> Picture:
    """A picture in the form in which experts are given it, as one of a request."""
    pixels = torch.from_numpy(fitted.square.astype(np.float32) / np.float32(255))
    return Picture(key, pixels, None if fitted.original is None else torch.from_numpy(fitted.original), fitted.size)


@dataclass(slots=True)
class Counts:
    """How many times an expert was run, not run because its weight would be too small, and known already."""

    run: int = 0
    skipped: int = 0
    cached: int = 0


class FeatureCache:
    """Features by picture and expert, those used longest ago dropped first. For any number of threads.

    Attributes:
        lock: held by whoever runs experts: weights of half precision are widened in place while they are used.

    Args:
        experts: in evaluation mode. size: S. most: bytes that the features may take.
    """

    def __init__(self, experts: Experts, size: int, device: torch.device, most: int) -> None:
        self.experts, self.device = experts, device
        self.kept: LRUCache[tuple[str, str], ExpertFeatures] = LRUCache(most, getsizeof=_bytes)
        self.counts = {name: Counts() for name in experts.names}
        self.lock = threading.Lock()
        # What stands for an expert that was not asked: nothing but empty slots.
        nothing = experts(torch.zeros(1, 3, size, size, device=device))
        self.blank = {name: part.map(torch.zeros_like) for name, part in nothing.items()}

    def of(self, pictures: Sequence[Picture], skipped: Sequence[Collection[str]]) -> dict[str, ExpertFeatures]:
        """Features of N pictures. Each expert is run once, on those pictures that need it and are not known.

        Args:
            skipped: per picture, the experts that are not to be run.
        """
        return together(self.each(pictures, skipped))

    def each(
        self,
        pictures: Sequence[Picture],
        skipped: Sequence[Collection[str]],
        again: Sequence[bool] | None = None,
    ) -> list[dict[str, ExpertFeatures]]:
        """As `of`, for each picture by itself.

        Args:
            again: per picture, whether it is looked at again, by experts that were skipped; the rest was counted then.
        """
        counted = [not one for one in again or [False] * len(pictures)]
        with self.lock:
            columns = {name: self._of_expert(name, pictures, skipped, counted) for name in self.experts.names}
        return [{name: column[row] for name, column in columns.items()} for row in range(len(pictures))]

    def _of_expert(
        self, name: str, pictures: Sequence[Picture], skipped: Sequence[Collection[str]], counted: Sequence[bool]
    ) -> list[ExpertFeatures]:
        counts = self.counts[name]
        found: dict[str, ExpertFeatures] = {}
        missing: dict[str, Picture] = {}
        for picture, left_out, first in zip(pictures, skipped, counted, strict=True):
            if name in left_out:
                counts.skipped += first
            elif (known := self.kept.get((picture.key, name))) is not None:
                counts.cached += picture.key not in found
                found[picture.key] = known
            else:
                missing[picture.key] = picture
        if missing:
            counts.run += len(missing)
            seen = self._run(name, list(missing.values()))
            for row, key in enumerate(missing):
                # A copy, or one picture would keep the whole batch in memory.
                found[key] = seen.rows(slice(row, row + 1)).map(torch.clone)
                if _bytes(found[key]) <= self.kept.maxsize:
                    self.kept[key, name] = found[key]
        return [
            self.blank[name] if name in left_out else found[picture.key]
            for picture, left_out in zip(pictures, skipped, strict=True)
        ]

    def _run(self, name: str, pictures: Sequence[Picture]) -> ExpertFeatures:
        """One expert on pictures: on all together, or on one after another where it reads them as they are, since those
        differ in size, and as numbers in 0..1 many of them would take much memory."""
        pixels_N3SS = torch.stack([picture.pixels for picture in pictures]).to(self.device)
        originals = originals_of(pictures)
        if originals is None or not self.experts.takes_original(name):
            return self.experts(pixels_N3SS, [name])[name]
        lone = zip(pixels_N3SS.split(1), originals, strict=True)
        return ExpertFeatures.cat([self.experts(pixels, [name], [original])[name] for pixels, original in lone])


def originals_of(pictures: Sequence[Picture]) -> list[Tensor] | None:
    """Pictures as they are; None where they were not read so."""
    found = [picture.original for picture in pictures if picture.original is not None]
    return found if len(found) == len(pictures) else None


def together(rows: Sequence[dict[str, ExpertFeatures]]) -> dict[str, ExpertFeatures]:
    """Features of several pictures, in this order, as those of one batch."""
    return {name: ExpertFeatures.cat([row[name] for row in rows]) for name in rows[0]}


def _bytes(features: ExpertFeatures) -> int:
    parts = [features.tokens, features.confidence, features.places]
    return sum(part.numel() * part.element_size() for part in parts if part is not None)
