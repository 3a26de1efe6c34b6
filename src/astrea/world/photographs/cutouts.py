"""Cut-outs: pictures of single things with a transparent surround, from a folder, with their names and categories."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from PIL import Image

from astrea.common.errors import AstreaError
from astrea.common.paths import exists, files_below, is_folder, read_bytes
from astrea.data.images import load_cut_out
from astrea.world.photographs.naming import Names, listed, short_name

PACKAGE = Path("/usr/share/tuxpaint/stamps")
"""Where the Debian package tuxpaint-stamps-default keeps its pictures."""

MOST_BYTES = 64 << 20
MOST_CAPTION = 1 << 20
SIDE = 400
"""Cut-outs are kept no larger than this in pixels: few things take more of a canvas."""

LEAST_SEEN, MOST_SEEN = 0.01, 0.97
"""Share of a picture that its thing fills; one that fills more has no surround, and is no cut-out."""


@dataclass(frozen=True, slots=True, order=True)
class CutOut:
    """One picture of a thing. path: below the folder, with slashes."""

    path: str
    name: str
    category: str


@dataclass(frozen=True)
class Catalogue:
    """All cut-outs of a folder.

    held_out: names that no training picture shows.
    """

    folder: Path
    cutouts: tuple[CutOut, ...]
    held_out: frozenset[str]
    names: Names

    @cached_property
    def of(self) -> dict[str, tuple[CutOut, ...]]:
        """name -> its cut-outs; names sorted."""
        found = defaultdict(list)
        for cutout in self.cutouts:
            found[cutout.name].append(cutout)
        return {name: tuple(found[name]) for name in sorted(found)}

    @cached_property
    def number(self) -> dict[CutOut, int]:
        """cut-out -> its place among all."""
        return {cutout: i for i, cutout in enumerate(self.cutouts)}

    @cached_property
    def categories(self) -> dict[str, str]:
        """name -> category."""
        return {name: some[0].category for name, some in self.of.items()}

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Names that training shows, sorted."""
        return tuple(name for name in self.of if name not in self.held_out)

    @cached_property
    def new(self) -> tuple[str, ...]:
        """Names that it does not show, sorted."""
        return tuple(name for name in self.of if name in self.held_out)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with every picture and with what it is called."""
        digest = hashlib.sha256()
        for cutout in self.cutouts:
            data = read_bytes(self.folder / cutout.path, MOST_BYTES, "cut-out")
            digest.update(f"{cutout}/{len(data)}/".encode())
            digest.update(data)
        digest.update(repr(sorted(self.held_out)).encode())
        return digest.hexdigest()

    def picture(self, cutout: CutOut) -> Image.Image:
        """A cut-out's pixels, cropped to what is seen of it: RGBA, at most `SIDE` on a side."""
        return _picture(self.folder / cutout.path)


@lru_cache(maxsize=1024)
def _picture(path: Path) -> Image.Image:
    image = load_cut_out(path)
    image = image.crop(image.getchannel("A").getbbox() or (0, 0, 1, 1))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def open_catalogue(folder: str | None, held_out: int | tuple[str, ...]) -> Catalogue:
    """The cut-outs of a folder of one's own, or of the Debian package.

    Args:
        folder: holds pictures with transparency (PNG), each beside a text file of the same name whose first line is
            its caption, such as "A frog."; the first folder on the way to a picture is its category. None = the
            package's.
        held_out: names to keep out of training, or how many.

    Raises:
        AstreaError: no package, no such folder, nothing usable in it, or names that it does not have.
    """
    names = listed()
    root = PACKAGE if folder is None else Path(folder).expanduser()
    if not is_folder(root):
        raise AstreaError(
            "the photograph world is made of the pictures of the Debian package tuxpaint-stamps-default, which is not "
            "installed"
            if folder is None
            else f"world.options.folder: {folder} is no folder",
            "apt-get install tuxpaint-stamps-default, or give a folder of cut-outs as world.options.folder",
        )
    found = _packaged(root, names) if folder is None else _own(root, names)
    if len({cutout.name for cutout in found}) < 4:
        raise AstreaError(
            f"{root} holds cut-outs of fewer than four things",
            'give PNG pictures with transparency, each beside a text file with a caption such as "A frog."',
        )
    return Catalogue(root, tuple(sorted(found)), _kept_back(found, held_out, names), names)


def _packaged(root: Path, names: Names) -> list[CutOut]:
    there = [path for path in names.photographs if exists(root / path)]
    return [CutOut(path, names.photographs[path], names.category(path)) for path in there]


def _own(root: Path, names: Names) -> list[CutOut]:
    """Pictures whose caption gives a short name, and that have a surround."""
    unreadable: list[AstreaError] = []
    found = []
    for path in sorted(files_below(root, lambda _, error: unreadable.append(error))):
        caption = path.with_suffix(".txt")
        if path.suffix.lower() != ".png" or not exists(caption):
            continue
        lines = read_bytes(caption, MOST_CAPTION, "caption").decode("utf-8", "replace").strip().splitlines()
        name = short_name(lines[0]) if lines else None
        if name is None or not _has_surround(path):
            continue
        relative = path.relative_to(root).as_posix()
        first = relative.split("/")[0] if "/" in relative else ""
        found.append(CutOut(relative, name, names.category(relative if not first else f"{first}/")))
    if unreadable:
        raise unreadable[0]
    return found


def _has_surround(path: Path) -> bool:
    alpha = load_cut_out(path).getchannel("A")
    seen = sum(alpha.histogram()[128:]) / (alpha.width * alpha.height)
    return LEAST_SEEN <= seen <= MOST_SEEN


def _kept_back(found: list[CutOut], wanted: int | tuple[str, ...], names: Names) -> frozenset[str]:
    """Names for the held-out classes: such as experts have a word for, where there are enough of them."""
    there = {cutout.name for cutout in found}
    if not isinstance(wanted, int):
        if unknown := sorted(set(wanted) - there):
            raise AstreaError(
                f"world.options.held_out: no cut-out is called {unknown[0]!r}",
                f"names there are: {', '.join(sorted(there)[:12])} ...",
            )
        return frozenset(wanted)
    order = sorted(there & names.known.keys(), key=_shuffled) or sorted(there, key=_shuffled)
    wanted = min(wanted, len(there) // 3)
    return frozenset(order[:wanted])


def _shuffled(name: str) -> str:
    # By the name alone, so that every run holds out the same.
    return hashlib.sha256(f"held out/{name}".encode()).hexdigest()
