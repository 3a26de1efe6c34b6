"""Data files as training data: conversations and captions, whose pictures the experts encode batch by batch.

Only a few batches are in memory: records are read in the order of training and pictures are decoded by a few threads.
Each process encodes its slice of a batch's pictures, and the features are gathered over all processes.

Letters: B samples, P pictures of a batch, R rows, S questions, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from astrea.common.progress import SILENT, Reporter
from astrea.data.fitted import FittedPicture, fit_picture
from astrea.data.packing import Packer
from astrea.data.picture_features import PictureFeatures, encode_once, expert_key, picture_key
from astrea.data.protocol import Ranks, Reword, Rows, Samples
from astrea.data.readers.conversation import called, messages_of, picture_id, texts_of
from astrea.data.readers.issues import Issue
from astrea.data.readers.mixture import Mixture, Sample, Source
from astrea.data.readers.record import ImageRef, Record
from astrea.data.readers.trainable import Trainable
from astrea.data.readers.warnings import RateLimitedWarnings
from astrea.data.segments import Segment, questions_apart
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures

SCANNED = 5000
"""Samples whose texts are counted for word frequencies."""

ENCODE_BATCH = 32
"""Pictures that experts encode at once."""

TRACKED = 10_000
"""Records between two reports of progress while a record with a picture is searched for."""


class Local(NamedTuple):
    """The pictures of a batch that this process encodes: squares (.., 3, S, S); as they are, or None where no expert
    reads those; and the squares' keys in the cache, none without one."""

    pixels: Tensor
    originals: list[Tensor] | None
    keys: Sequence[bytes]


class FileDataset:
    """`astrea.data.protocol.TrainingData` of data files. A bad record is reported, and the
    next good one takes its place.

    Args:
        sources: the files, see `astrea.data.readers.sources`.
        bank: the experts, where they compute. image_size: S of the square that they see.
        packer: knows how long a conversation is. max_tokens: longer ones are bad records. row_tokens: conversations
            are put into one row up to that many tokens; None = one in each.
        ranks: the processes that share the pictures.
        threads: that decode pictures.
        kept: features of earlier runs; None = pictures are encoded every time.

    Raises:
        AstreaError: there is no record.
    """

    names: Sequence[str] = ()
    """Files say of no words that they are one name."""

    withheld: Sequence[str] = ()
    """No name is kept from training."""

    def __init__(
        self,
        sources: Sequence[Source],
        bank: ExpertBank,
        packer: Packer,
        *,
        image_size: int,
        max_tokens: int,
        row_tokens: int | None = None,
        threads: int = 2,
        kept: PictureFeatures | None = None,
        ranks: Ranks,
        report: Reporter = SILENT,
    ) -> None:
        self.kept, self.expert_keys = kept, dict[str, bytes]()
        self.bank, self.image_size, self.row_tokens, self.ranks = bank, image_size, row_tokens, ranks
        self.sources, self.report, self.trainable = sources, report, Trainable(packer, max_tokens)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
        warn = RateLimitedWarnings(report.say)
        # Every process meets every bad record; the main one reports it.
        self.on_issue: Callable[[Issue], None] = warn if ranks.is_main else (lambda issue: None)
        self.conversations = Mixture(sources, check=self.trainable, on_issue=self.on_issue)
        names = [source.reader.path.name for source in sources]
        self.groups: Sequence[str] = tuple(dict.fromkeys(names))
        self.group_of = [self.groups.index(name) for name in names]

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self.conversations)

    @cached_property
    def pictured(self) -> list[Source]:
        """The sources that show a picture at all; the first use reads each as far as its first one."""
        return [source for source in self.sources if self.shows(source)]

    def shows(self, source: Source) -> bool:
        """Whether any record of a source shows a picture."""
        reader = source.reader
        for number, found in enumerate(islice(reader.examine(), len(reader)), 1):
            if isinstance(found, Record) and found.images:
                return True
            if number % TRACKED == 0:
                self.report.track(f"pictures of {reader.path.name}", number, len(reader))
        return False

    @cached_property
    def pairs(self) -> Mixture:
        """What alignment reads: the records with a picture, of the sources that have any."""
        check = replace(self.trainable, pictured=True)
        return Mixture(self.pictured, check=check, on_issue=self.on_issue)

    def draw(self, position: int, size: int, seed: int, *, pairs: bool = False) -> Samples:
        """See `TrainingData.draw`."""
        mixture = self.pairs if pairs else self.conversations
        found = []
        for place in range(position, position + size):
            epoch, at = divmod(place, len(mixture))
            found.append(mixture.sample(at, seed, epoch))
        shown = [sample.record.images[:1] if pairs else sample.record.images for sample in found]
        counts = torch.tensor([len(images) for images in shown])
        pictures = [(sample, image) for sample, images in zip(found, shown, strict=True) for image in images]
        pixels, originals = self.pixels(pictures[self.ranks.local_slice(len(pictures))])
        keys = [] if self.kept is None else [picture_key(one) for one in pixels]
        kept = Local(pixels, originals, keys)
        return Samples(
            names=[called(sample.record) for sample in found],
            ids=torch.tensor([picture_id(sample) for sample in found]),
            texts=[texts_of(sample.record) for sample in found],
            first=torch.where(counts > 0, counts.cumsum(0) - counts, -1),
            pictures=len(pictures),
            encode=lambda names=None: self.encode(kept, len(pictures), names),
            pixels=lambda: pixels,
            originals=lambda: originals,
            numbers=None,
            content=found,
        )

    def pixels(self, pictures: Sequence[tuple[Sample, ImageRef]]) -> tuple[Tensor, list[Tensor] | None]:
        """Pictures (.., 3, S, S) in 0..1, decoded side by side; and as they are, if an expert reads those."""
        wanted = self.bank.wants_originals

        def one(picture: tuple[Sample, ImageRef]) -> FittedPicture:
            sample, image = picture
            return fit_picture(sample.picture(image), self.image_size, original=wanted)

        made = list(self.pool.map(one, pictures))
        size = self.image_size
        stacked = np.stack([one.square for one in made]) if made else np.zeros((0, 3, size, size), np.uint8)
        originals = [torch.from_numpy(one.original) for one in made if one.original is not None] if wanted else None
        return torch.from_numpy(stacked.astype(np.float32) / np.float32(255)), originals

    @torch.no_grad()
    def encode(self, local: Local, pictures: int, names: Sequence[str] | None) -> dict[str, ExpertFeatures]:
        """Features of all P pictures of a batch by the experts, or those named; ``local`` are this process's slice.
        Only pictures that are not in the cache are encoded."""
        if not pictures:
            return {}
        # With fewer pictures than processes some have none: they encode a blank one, for the shapes.
        own = local if len(local.pixels) else Local(local.pixels.new_zeros(1, *local.pixels.shape[1:]), None, [])
        wanted = self.bank.names if names is None else names
        features = {name: self.encode_with(name, own).rows(slice(len(local.pixels))) for name in wanted}
        return {name: part.map(lambda value: self.ranks.gather(value, pictures)) for name, part in features.items()}

    def encode_with(self, name: str, local: Local) -> ExpertFeatures:
        """One expert's features of some pictures, on the device of the training."""
        device = self.ranks.device
        pixels, originals, keys = local.pixels, local.originals, local.keys
        if originals is not None and keys and self.bank.takes_original(name):
            keys = [picture_key(one) for one in originals]

        def encode(places: Tensor) -> ExpertFeatures:
            parts = []
            for some in places.split(ENCODE_BATCH):
                whole = None if originals is None else [originals[place] for place in some.tolist()]
                parts.append(self.bank(pixels[some].to(device), [name], whole)[name])
            return ExpertFeatures.cat(parts)

        if self.kept is None or not keys:
            return encode(torch.arange(len(pixels)))
        if name not in self.expert_keys:
            self.expert_keys[name] = expert_key(self.bank[name], self.bank.options[name])
        return encode_once(self.kept, self.expert_keys[name], keys, encode).map(lambda value: value.to(device))

    def pack(
        self,
        packer: Packer,
        samples: Samples,
        which: Tensor,
        *,
        per_question: bool,
        reworded: Sequence[Reword | None] | None = None,
    ) -> Rows:
        """See `TrainingData.pack`."""
        segments: list[tuple[Segment, int, list[int]]] = []  # with its group and its pictures
        at = 0
        changes = reworded or [None] * len(samples.content)
        for sample, text, change in zip(samples.content, which.tolist(), changes, strict=True):
            messages = messages_of(sample.record, text)
            if change is not None:
                messages = [{**message, "content": change(message["content"])} for message in messages]
            whole = packer.conversation(messages, name=called(sample.record))
            for part in questions_apart(whole, packer.picture_tokens, packer.image) if per_question else [whole]:
                segments.append((part, self.group_of[sample.source], list(range(at, at + part.pictures))))
            at += len(sample.record.images)
        rows = [segments[i : i + 1] for i in range(len(segments))]
        if self.row_tokens is not None and not per_question:
            rows = filled_rows(segments, self.row_tokens)
            # Rows do not depend on the number of processes; where there are fewer rows, some get one without labels.
            rows += [[(idle(packer.pad), -1, [])] for _ in range(self.ranks.world - len(rows))]
        asked = [
            [group if pictures else -1 for segment, group, pictures in row for _ in range(max(segment.questions))]
            for row in rows
        ]
        most = max(map(len, asked))
        shown = [(picture, number) for number, row in enumerate(rows) for _, _, own in row for picture in own]
        places = torch.tensor(shown, dtype=torch.long).view(-1, 2)
        return Rows(
            packer.pack_conversations([[segment for segment, _, _ in row] for row in rows]),
            torch.tensor([row + [-1] * (most - len(row)) for row in asked]),
            places[:, 0],
            places[:, 1],
        )

    def more_pictures(self, samples: Samples, count: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """The batch's own pictures, repeated: encoding others would cost as much as training does."""
        pictures = samples.pictures
        if pictures < 2:
            return samples, torch.zeros(0, dtype=torch.long)
        # Whole rounds only, so that the last picture and the first one differ.
        return samples, torch.arange(max(1, count // pictures) * pictures) % pictures

    def scanned(self, seed: int) -> Iterable[str]:
        """See `TrainingData.scanned`."""
        mixture = self.pairs if self.pictured else self.conversations
        for place in range(min(SCANNED, len(mixture))):
            yield from texts_of(mixture.sample(place, seed, 0).record)

    def every_text(self) -> None:
        """None: files may be too large to be read whole."""
        return None


def filled_rows(segments: Sequence[tuple[Segment, Any, Any]], limit: int) -> list[list[Any]]:
    """Rows of consecutive segments, each of at most ``limit`` tokens or of one segment."""
    rows: list[list[Any]] = []
    length = 0
    for one in segments:
        own = len(one[0].ids)
        if not rows or length + own > limit:
            rows.append([])
            length = 0
        rows[-1].append(one)
        length += own
    return rows


def idle(token: int) -> Segment:
    """A conversation without labels, for a process that has no other: all processes have to run the model."""
    return Segment([token], [-100], [0.0], [1], [False], 0)
