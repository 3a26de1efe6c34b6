"""A shuffled order of any length that is never written out: where place i goes is computed from i and a key.

A Feistel network (H. Feistel, 1973) permutes the numbers of an even number of bits; what falls outside the wanted
length is permuted again until it falls inside (cycle walking: J. Black, P. Rogaway, "Ciphers with arbitrary finite
domains", 2002).
"""

from __future__ import annotations

import hashlib
from typing import Any, overload

import numpy as np

_ROUNDS = 8
_MASK = (1 << 64) - 1


class Permutation:
    """A permutation of 0 .. size-1, the same on every machine and in every version.

    Args:
        size: how many numbers, at least 1.
        key: decides the order, such as (seed, epoch); compared by its text.
    """

    def __init__(self, size: int, *key: object) -> None:
        if size < 1:
            raise ValueError(f"size is {size}")
        self.size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8 * _ROUNDS).digest()
        self._keys = [int.from_bytes(digest[at : at + 8], "little") for at in range(0, 8 * _ROUNDS, 8)]

    @overload
    def __call__(self, places: int) -> int: ...
    @overload
    def __call__(self, places: np.ndarray) -> np.ndarray: ...
    def __call__(self, places: int | np.ndarray) -> int | np.ndarray:
        """Where places go.

        Args:
            places: a number in 0 .. size-1, or an integer array of them, of any shape.

        Returns:
            A number, or an int64 array of the same shape.
        """
        if isinstance(places, np.ndarray):
            found = self._once(places.astype(np.uint64))
            while (outside := found >= self.size).any():
                found[outside] = self._once(found[outside])
            result: int | np.ndarray = found.astype(np.int64)
            return result
        found = self._once(places)
        while found >= self.size:
            found = self._once(found)
        return int(found)

    def _once(self, value: Any) -> Any:  # an int or an array of uint64
        low = (1 << self._half) - 1
        left, right = value >> self._half, value & low
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & low)
        return (left << self._half) | right


def _mixed(value: Any) -> Any:
    """The finalizer of SplitMix64 (G. Steele, D. Lea, C. Flood, 2014), whose low bits depend on all others."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
