"""Experts' outputs for pictures, each computed once: kept by the hash of the picture's file.

Letters: N pictures, S side of the square picture.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
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
        first = [not one for one in again or [False] * len(pictures)]
        asked = {name: _asked(name, pictures, skipped) for name in self.experts.names}
        with self.lock:
            # What is known of all experts before any of them is run, which could drop it.
            found = {name: self._known(name, keys) for name, keys in asked.items()}
            missing = {
                name: {key: one for key, one in keys.items() if key not in found[name]} for name, keys in asked.items()
            }
            for name, features in self._run_missing(missing).items():
                found[name] |= features
            for name, counts in self.counts.items():
                counts.run += len(missing[name])
                counts.cached += len(asked[name]) - len(missing[name])
                counts.skipped += sum(one for one, left_out in zip(first, skipped, strict=True) if name in left_out)
        return [
            {name: self.blank[name] if name in left_out else some[picture.key] for name, some in found.items()}
            for picture, left_out in zip(pictures, skipped, strict=True)
        ]

    def lacks(self, name: str, pictures: Sequence[Picture]) -> set[str]:
        """The keys of pictures that an expert would have to be run on. From any thread, without a lock: by the time
        that it is run there may be others."""
        return {picture.key for picture in pictures if (picture.key, name) not in self.kept}

    def _known(self, name: str, keys: Iterable[str]) -> dict[str, ExpertFeatures]:
        found = {key: self.kept.get((key, name)) for key in keys}
        return {key: features for key, features in found.items() if features is not None}

    def _run_missing(self, missing: Mapping[str, Mapping[str, Picture]]) -> dict[str, dict[str, ExpertFeatures]]:
        """Run experts on the pictures that each lacks, and keep what they give. Those that lack the same ones are
        called together: experts in another process are then sent the pictures once."""
        calls: dict[tuple[str, ...], list[str]] = {}
        for name, pictures in missing.items():
            if pictures:
                calls.setdefault(tuple(pictures), []).append(name)
        found: dict[str, dict[str, ExpertFeatures]] = {}
        for keys, names in calls.items():
            for name, seen in self._run(names, [missing[names[0]][key] for key in keys]).items():
                # Copies, or one picture would keep the whole batch in memory.
                rows = {key: seen.rows(slice(row, row + 1)).map(torch.clone) for row, key in enumerate(keys)}
                found[name] = rows
                self.kept.update({(key, name): one for key, one in rows.items() if _bytes(one) <= self.kept.maxsize})
        return found

    def _run(self, names: Sequence[str], pictures: Sequence[Picture]) -> dict[str, ExpertFeatures]:
        """Experts on pictures: on all together, or on one after another where they read them as they are, since those
        differ in size, and as numbers in 0..1 many of them would take much memory."""
        pixels_N3SS = torch.stack([picture.pixels for picture in pictures]).to(self.device)
        originals = originals_of(pictures)
        lone = [] if originals is None else [name for name in names if self.experts.takes_original(name)]
        square = [name for name in names if name not in lone]
        found = self.experts(pixels_N3SS, square) if square else {}
        for name in lone:
            pairs = zip(pixels_N3SS.split(1), originals or (), strict=True)
            one_by_one = [self.experts(pixels, [name], [original])[name] for pixels, original in pairs]
            found[name] = ExpertFeatures.cat(one_by_one)
        return found


def _asked(name: str, pictures: Sequence[Picture], skipped: Sequence[Collection[str]]) -> dict[str, Picture]:
    """The pictures that an expert is asked about, by key."""
    both = zip(pictures, skipped, strict=True)
    return {picture.key: picture for picture, left_out in both if name not in left_out}


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
