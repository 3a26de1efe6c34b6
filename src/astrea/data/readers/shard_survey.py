"""What the names in a tar shard tell before any sample is read: how many samples there are, and which members are of no
use, or not where the format wants them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from astrea.common.terminal import counted
from astrea.data.readers.issues import BadRow, quoted
from astrea.data.suffixes import NOT_READ, READ, is_clutter

TEXTS = (".txt", ".json")
KINDS_NAMED = 5
"""How many kinds of unused members are reported one by one."""


@dataclass(frozen=True, slots=True)
class MemberName:
    """What the name of a sample's member says.

    Args:
        key: its folder and its name up to the first dot; neighbours that have it are one sample.
        kind: what follows that dot, in small letters: ``png``, ``0.png``.
        ending: the last ending with its dot: ``.png``.
    """

    key: str
    kind: str
    ending: str

    @property
    def is_picture(self) -> bool:
        """Whether it is called like a picture, of a format that is read or not."""
        return self.ending not in TEXTS


def member_name(path: str) -> MemberName | None:
    """What a member's path says; None if it is no part of a sample."""
    folder, slash, base = path.rpartition("/")
    stem, dot, kind = base.partition(".")
    ending = "." + kind.rpartition(".")[2].lower()
    if not stem or not dot or is_clutter(path) or ending not in (*READ, *NOT_READ, *TEXTS):
        return None
    return MemberName(folder + slash + stem, kind.lower(), ending)


@dataclass
class Survey:
    """Counts over the members of one shard.

    Args:
        samples: runs of neighbours with one key.
        clutter: files that a system left there. unused: other members that nothing reads, by ending.
        pieces: samples whose key an earlier one has. apart: halves of samples that have the other half in another
            folder.
    """

    samples: int = 0
    clutter: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    pieces: int = 0
    apart: int = 0

    def notes(self) -> Iterator[BadRow]:
        """Notes on the shard as a whole."""
        if self.clutter:
            what = f"{counted(self.clutter, 'member')} of macOS or Windows (such as ._name or .DS_Store) not used"
            yield BadRow("unused", what, "nothing is lost by it")
        for ending, count in self.unused.most_common(KINDS_NAMED):
            what = f"{counted(count, 'member')} with the ending {quoted(ending)} not used"
            yield BadRow("unused", what, f"pictures, {' and '.join(TEXTS)} are; rename what should be")
        if (more := len(self.unused) - KINDS_NAMED) > 0:
            yield BadRow("unused", f"members with {more} more endings not used", "see docs/data.md for what is")
        if self.pieces:
            what = f"{counted(self.pieces, 'sample')} in pieces: members with one key that are not neighbours"
            yield BadRow("unsorted", what, "write the shard in the order of names: tar --sort=name")
        if self.apart:
            what = f"{counted(self.apart, 'picture')} with a text of the same name in another folder: that is no sample"
            yield BadRow("unsorted", what, "put them into one folder, next to each other, and write the shard again")


def survey(paths: Iterable[str]) -> Survey:
    """Look over the paths of a shard's ordinary members, in their order."""
    found = Survey()
    keys: set[int] = set()
    halves: dict[bool, set[int]] = {True: set(), False: set()}  # names of samples that are a picture or a text alone
    for key, names in groupby(_of_samples(paths, found), key=lambda name: name.key):
        found.samples += 1
        found.pieces += _digest(key) in keys
        keys.add(_digest(key))
        pictured = {name.is_picture for name in names}
        if len(pictured) == 1:
            half, stem = pictured.pop(), _digest(key.rpartition("/")[2])
            found.apart += stem in halves[not half] and found.pieces == 0
            halves[half].add(stem)
    return found


def _of_samples(paths: Iterable[str], found: Survey) -> Iterator[MemberName]:
    """The members that are part of samples; the others are counted."""
    for path in paths:
        if (name := member_name(path)) is not None:
            yield name
        elif is_clutter(path):
            found.clutter += 1
        else:
            base = path.rpartition("/")[2]
            found.unused["." + base.rpartition(".")[2].lower() if "." in base else base] += 1


def _digest(text: str) -> int:
    """64 bits of a text, so that millions of them fit."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
