"""A data format of one's own: text files with a picture's path, a tab and a caption on each line.

With this file's folder on PYTHONPATH, two commands know the format:

    astrea validate album.tsv --format caption_tsv:CaptionTsv
    astrea train tiny 'data.train=[{path: album.tsv, format: "caption_tsv:CaptionTsv"}]' --out runs/album

An installed package registers it under a name of its own, and recipes write ``format: caption-tsv``:

    [project.entry-points."astrea.readers"]
    caption-tsv = "caption_tsv:CaptionTsv"
"""

from __future__ import annotations

from pathlib import Path

from astrea.data.readers import BadRow, FileImage, IndexedReader, Record, Where


class CaptionTsv(IndexedReader):
    """The lines of a file, each ``picture<TAB>caption``; picture paths are relative to the image root."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "caption-tsv")
        self.lines = path.read_text(encoding="utf-8").splitlines()

    def __len__(self) -> int:
        return len(self.lines)

    def read(self, index: int) -> Record:
        picture, tab, caption = self.lines[index].partition("\t")
        if not tab:
            raise BadRow("wrong_type", "the line has no tab", "write: picture, tab, caption")
        return Record(None, Where(str(self.path), index + 1), images=(FileImage(picture),), captions=(caption,))
