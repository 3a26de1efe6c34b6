"""Pictures come from everywhere that a row may name, and only from the image root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from record_rows import picture, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers import ImageRoot, Record, open_reader
from astrea.data.readers.check import Checks
from astrea.data.readers.record import FileImage, InlineImage, MemberImage, Where


def test_pictures_come_from_everywhere_and_only_from_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    data = picture(0)
    (root / "in" / "a.png").write_bytes(data)
    (root / "inner").symlink_to(root / "in")
    images = ImageRoot(root)
    shard = write_tar(tmp_path / "s.tar", [("0.png", data), ("0.txt", b"x")])
    (record,) = open_reader(shard)
    for image in (FileImage("in/a.png"), FileImage("./inner//a.png"), InlineImage(data), record.images[0]):
        assert images.bytes_of(image) == data
        assert images.load(image).size == (10, 8)
        images.check(image)
    assert isinstance(record.images[0], MemberImage)
    bad = {
        "../root/in/a.png": "image_path", "in\\..\\a.png": "image_path", "/a.png": "image_path",
        "C:\\a.png": "image_path", "\\\\host\\a.png": "image_path", "": "image_path", "a\0b": "image_path",
        "file:///etc/passwd": "image_remote",
        "in/b.png": "image_missing", "x" * 5000: "image_path", "in": "image_corrupt",
    }  # fmt: skip
    for path, kind in bad.items():
        row = Record(None, Where("f", 1), (FileImage(path),), captions=("x",))
        assert [issue.kind for issue in Checks()(row, images)] == [kind], path
    with pytest.raises(AstreaError, match="is not a folder"):
        ImageRoot(root / "in" / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    row = Record(None, Where("f", 1), (FileImage("pipe.png"),), captions=("x",))
    assert [issue.kind for issue in Checks()(row, ImageRoot(tmp_path))] == ["image_corrupt"]
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(AstreaError, match="not an ordinary file"):
        open_reader(tmp_path / "pipe.jsonl")
