"""Line index of a text file: one pass over the bytes, then any row by its number, without the file in memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from astrea.common.paths import open_file
from astrea.data.readers.issues import BadRow
from astrea.data.readers.jsonl import MAX_ROW_BYTES

Track = Callable[[int], None]
"""Called from time to time with the number of bytes read."""

DATA_FILE = "data file"
"""What messages call a file of records."""

CHUNK = 1 << 17
BLANK = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_OPENERS, _CLOSERS = b"[{", b"]}"
_STEPS = np.zeros(256, np.int8)
_STEPS[list(_OPENERS)] = 1
_STEPS[list(_CLOSERS)] = -1
_IS_STRUCTURE = _STEPS != 0
_IS_STRUCTURE[ord(",")] = True


@dataclass
class LineIndex:
    """Start (in bytes), size (capped just above the longest row) and line of every row: 20 bytes a row.

    ``broken`` is what is wrong with the frame around the rows, and on which line.
    """

    path: Path
    starts: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("Q"))
    broken: tuple[int, BadRow] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, start: int, stop: int, line: int) -> None:
        """One row more."""
        self.starts.append(start)
        self.sizes.append(min(stop - start, MAX_ROW_BYTES + 1))
        self.lines.append(line)

    def read(self, index: int) -> tuple[int, bytes]:
        """Line and bytes of one row, without the blanks around it.

        The file is opened anew each time, so that processes and threads may share the index.

        Raises:
            AstreaError: the file cannot be read.
        """
        with open_file(self.path, DATA_FILE) as file:
            file.seek(self.starts[index])
            data = file.read(self.sizes[index])
        body = data.lstrip(BLANK)
        return self.lines[index] + data.count(b"\n", 0, len(data) - len(body)), body.rstrip(BLANK)


def index_lines(path: Path, track: Track | None = None) -> LineIndex:
    """The lines of a JSONL file that are not blank. A byte order mark at the beginning is passed over.

    Raises:
        AstreaError: the file cannot be read.
    """
    index = LineIndex(path)
    with open_file(path, DATA_FILE) as file:
        position = _skip_bom(file)
        start, line, blank = position, 1, True
        while piece := file.readline(CHUNK):  # of a long line, a part
            position += len(piece)
            blank = blank and not piece.strip(BLANK)
            if not piece.endswith(b"\n"):
                continue
            if not blank:
                index.add(start, position, line)
            start, line, blank = position, line + 1, True
            if track and line % 1000 == 0:
                track(position)
        if not blank:
            index.add(start, position, line)
    return index


def index_array(path: Path, track: Track | None = None) -> LineIndex:
    """The elements of a file that is one JSON array, found by its brackets, strings and commas alone.

    The elements themselves are not parsed: one that is no JSON becomes a bad row of its own.

    Raises:
        AstreaError: the file cannot be read.
    """
    index = LineIndex(path)
    with open_file(path, DATA_FILE) as file:
        base = _skip_bom(file)
        frame = _Frame()
        start, line, start_line, last = base, 1, 1, 0
        while last not in _CLOSERS and (chunk := file.read(CHUNK)):
            data = np.frombuffer(chunk, np.uint8)
            places = frame.boundaries(data)
            newlines = np.searchsorted(np.flatnonzero(data == ord("\n")), places)
            for place, before in zip(places.tolist(), newlines.tolist(), strict=True):
                last = chunk[place]
                if last not in _OPENERS:
                    index.add(start, base + place, start_line)
                start, start_line = base + place + 1, line + before
                if last in _CLOSERS:
                    break
            line += chunk.count(b"\n")
            base += len(chunk)
            if track:
                track(base)
        if last not in _CLOSERS:
            index.add(start, base, start_line)
            index.broken = (line, _OPEN)
        elif last == ord("}"):
            index.broken = (start_line, _WRONG)
        else:
            index.broken = _what_follows(file, start, start_line)
    if not index.read(len(index) - 1)[1] and (len(index) == 1 or last not in _CLOSERS):  # [] has no element
        for column in (index.starts, index.sizes, index.lines):
            column.pop()
    return index


class _Frame:
    """Finds the outermost brackets and commas of a JSON array, chunk by chunk."""

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False
        self.slashes = 0  # backslashes at the end of the last chunk

    def boundaries(self, data: np.ndarray) -> np.ndarray:
        """Places of what opens the array, divides its elements and closes it, in a chunk of bytes."""
        quotes = self._real_quotes(data)
        places = np.flatnonzero(_IS_STRUCTURE[data])
        places = places[(np.searchsorted(quotes, places) + self.in_string) % 2 == 0]
        steps = _STEPS[data[places]]
        depths = self.depth + np.cumsum(steps, dtype=np.int64)
        self.in_string = bool((len(quotes) + self.in_string) % 2)
        self.depth = int(depths[-1]) if len(depths) else self.depth
        found: np.ndarray = places[((depths == 1) & (steps >= 0)) | ((depths == 0) & (steps < 0))]
        return found

    def _real_quotes(self, data: np.ndarray) -> np.ndarray:
        """Places of the quotation marks that begin or end a string: an even number of backslashes stands before."""
        quotes = np.flatnonzero(data == ord('"'))
        slash = data == ord("\\")
        if self.slashes or slash.any():
            index = np.arange(1, len(data) + 1, dtype=np.int32)
            # For every place, how many bytes end with the last one before it that is no backslash.
            ends = np.concatenate([[0], np.maximum.accumulate(np.where(slash, 0, index))])
            before = quotes - ends[quotes] + np.where(ends[quotes] == 0, self.slashes, 0)
            quotes = quotes[before % 2 == 0]
            self.slashes = len(data) - int(ends[-1]) + (self.slashes if ends[-1] == 0 else 0)
        return quotes


def _what_follows(file: BinaryIO, place: int, line: int) -> tuple[int, BadRow] | None:
    """The issue of a file that goes on behind its array, which ends before ``place``."""
    file.seek(place)
    while rest := file.read(CHUNK):
        if body := rest.lstrip(BLANK):
            return line + rest.count(b"\n", 0, len(rest) - len(body)), _MORE
        line += rest.count(b"\n")
    return None


def _skip_bom(file: BinaryIO) -> int:
    if file.read(len(_BOM)) == _BOM:
        return len(_BOM)
    file.seek(0)
    return 0


_OPEN = BadRow("unreadable", "the file ends before its JSON array does", "copy the file again, or close the array")
_WRONG = BadRow("unreadable", "the JSON array is closed by }", "write ] there")
_MORE = BadRow("unreadable", "something follows the end of the JSON array", "leave out what follows the last bracket")
