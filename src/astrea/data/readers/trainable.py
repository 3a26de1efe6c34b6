"""Which records training can use: what `astrea validate` asks of them, and that the chat template takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from astrea.common.errors import AstreaError
from astrea.data.packing import Packer
from astrea.data.readers.check import Checks, Layout
from astrea.data.readers.conversation import messages_of, texts_of
from astrea.data.readers.issues import BadRow, Issue
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.record import Record

NO_PAIR = "no_pair"
"""Kind of issue of a sound record that alignment cannot read; it is passed over in silence."""


@dataclass(frozen=True)
class Trainable:
    """The check of `astrea.data.readers.mixture.Mixture` in training.

    Args:
        packer: writes conversations as training does, for any chat template. max_tokens: the longest one.
        pictured: the record must show a picture.
    """

    packer: Packer
    max_tokens: int
    pictured: bool = False

    @cached_property
    def _checks(self) -> Checks:
        return training_checks(self.packer, self.max_tokens)

    def __call__(self, record: Record, root: ImageRoot) -> Iterator[Issue]:
        """The issues of a record, one by one."""
        if self.pictured and not record.images:
            # First, as it is the only one that costs nothing to find, and whole files may be without pictures.
            blind = BadRow(NO_PAIR, "the record has no picture", "alignment passes it over")
            yield blind.at(record.source, record.id)
        yield from self._checks(record, root)


def training_checks(packer: Packer, max_tokens: int, *, decode: bool = False, need_images: bool = False) -> Checks:
    """What training asks of every record, and `astrea validate --model` with it.

    Args:
        packer: writes conversations as training does, for any chat template. max_tokens: the longest one.
        decode, need_images: see `Checks`.
    """

    def control(text: str) -> list[str]:
        return [found.token for found in packer.control.find(text)]

    return Checks(decode, need_images, _Counter(packer, max_tokens), control)


@dataclass(frozen=True)
class _Counter:
    """`astrea.data.readers.check.TokenCounter` by the packer itself."""

    packer: Packer
    limit: int

    def layout(self, record: Record) -> Layout:
        """That of the longest way in which training may read the record.

        Raises:
            BadRow: the template refuses the record, or leaves out a picture.
        """
        if record.messages:
            found = self._read(record, 0)
            # Alignment reads captions by themselves.
            longest = max((len(self.packer.ids(text)) for text in record.captions), default=0)
            return found if found.tokens >= longest else Layout(longest, 0, 0)
        layouts = (self._read(record, which) for which in range(len(texts_of(record))))
        return max(layouts, key=lambda one: one.tokens, default=Layout(0, 0, 0))

    def _read(self, record: Record, which: int) -> Layout:
        try:
            segment = self.packer.conversation(messages_of(record, which))
        except AstreaError as error:
            raise BadRow("unusable", error.message, error.hint) from error
        if segment.pictures != len(record.images):
            what = f"the chat template shows {segment.pictures} of {len(record.images)} pictures"
            raise BadRow("unusable", what, "show pictures in the user's turns, each with an <image> of its own")
        images = [at for at, one in enumerate(segment.ids) if one == self.packer.image]
        first = next(at for at, label in enumerate(segment.labels) if label != -100)
        return Layout(len(segment.ids), images[-1] + 1 if images else 0, first)
