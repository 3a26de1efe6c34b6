"""WebDataset shards as people make them: every member is used, or told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from record_rows import picture, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers.check import Checks, examine
from astrea.data.readers.detect import open_reader
from astrea.data.readers.issues import NOTES, Issue
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.record import Record
from astrea.data.readers.sources import open_sources
from astrea.data.suffixes import READ

FORMAT_OF = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF"}
FORMAT_OF |= {".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".apng": "PNG", ".tiff": "TIFF"}


def looked_over(path: Path) -> tuple[list[Record], list[Issue]]:
    """The records without an issue, and all issues."""
    pairs = list(examine(open_reader(path), ImageRoot(path.parent), Checks(decode=True)))
    issues = [issue for _, found in pairs for issue in found]
    return [record for record, found in pairs if record is not None and not found], issues


def kinds(issues: list[Issue]) -> list[tuple[int, str]]:
    return [(issue.where.number, issue.kind) for issue in issues]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_pictures_of_every_ending_that_is_read(tmp_path: Path, mode: str) -> None:
    assert FORMAT_OF.keys() == set(READ)
    members = []
    for ending, format in FORMAT_OF.items():
        shouted = ending.upper() if ending == ".gif" else ending
        members += [(f"./d/{ending[1:]}{shouted}", picture(1, format)), (f"./d/{ending[1:]}.txt", b"a cat")]
    records, issues = looked_over(write_tar(tmp_path / f"a.tar{'.gz' if mode != 'w' else ''}", members, mode))
    assert issues == []
    assert [(len(record.images), record.captions) for record in records] == [(1, ("a cat",))] * len(FORMAT_OF)


def test_clutter_and_other_members_are_told_and_cost_nothing(tmp_path: Path) -> None:
    junk = b"\x00\x05\x16\x07junk"
    members = [
        ("._0001.png", junk), ("0001.png", picture(1)), ("._0001.txt", junk), (".DS_Store", junk),
        ("0001.txt", b"a cat"),
        ("__MACOSX/0001.txt", junk), ("README.md", b"#"), ("0002.png", picture(2)), ("0002.cls", b"7"),
        ("0002.txt", b"a dog"), ("LICENSE", b""),
    ]  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    records, issues = looked_over(path)
    assert [record.captions for record in records] == [("a cat",), ("a dog",)]
    assert len(open_reader(path)) == 2
    assert {issue.kind for issue in issues} == {"unused"} <= NOTES
    said = "\n".join(map(str, issues))
    for words in ("4 members of macOS or Windows", "1 member with the ending '.md'", "'.cls' not used", "'LICENSE'"):
        assert words in said
    assert [record.id for record in open_reader(path)] == ["0001", "0002"]  # a note is no error


def test_pictures_of_formats_that_are_not_read(tmp_path: Path) -> None:
    members = [("1.heic", b"ftypheic"), ("1.txt", b"a cat"), ("2.avif", b""), ("2.txt", b"a dog")]
    records, issues = looked_over(write_tar(tmp_path / "a.tar", members))
    assert records == []
    assert kinds(issues) == [(1, "image_corrupt"), (2, "image_corrupt")]
    assert "'1.heic' is of the format .heic, which is not read; convert it" in str(issues[0])


def test_names_with_dots_do_not_merge_in_silence(tmp_path: Path) -> None:
    members = [(f"22.0{n}.{kind}", data) for n in (5, 7) for kind, data in (("png", picture(n)), ("txt", b"a cat"))]
    records, issues = looked_over(write_tar(tmp_path / "a.tar", members))
    assert records == []
    assert kinds(issues) == [(1, "merged")]
    assert "its key ends at the first dot" in str(issues[0])
    half = [members[0], members[3]]  # a picture of one, the text of another
    assert kinds(looked_over(write_tar(tmp_path / "b.tar", half))[1]) == [(1, "merged")]
    twice = [("1.png", picture(1)), ("1.png", picture(2)), ("1.txt", b"a cat")]
    assert kinds(looked_over(write_tar(tmp_path / "c.tar", twice))[1]) == [(1, "merged")]


def test_several_pictures_and_several_captions_of_one_sample_are_meant(tmp_path: Path) -> None:
    said = {"conversations": [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "yes"}]}
    members = [("1.0.png", picture(1)), ("1.1.png", picture(2)), ("1.json", json.dumps(said).encode())]
    members += [("2.05.png", picture(3)), ("2.05.txt", b"a cat")]
    members += [("3.png", picture(4)), ("3.0.txt", b"a cat"), ("3.1.txt", b"a small cat")]
    members += [("4.jpg", picture(5, "JPEG")), ("4.txt", b"a cat"), ("4.json", b'{"caption": "a cat"}')]
    records, issues = looked_over(write_tar(tmp_path / "a.tar", members))
    assert issues == []
    assert [len(record.images) for record in records] == [2, 1, 1, 1]
    assert [record.captions for record in records[1:]] == [("a cat",), ("a cat", "a small cat"), ("a cat",)]


def test_unsorted_shards_and_folders_apart_are_told(tmp_path: Path) -> None:
    pictures = [(f"{n}.png", picture(n)) for n in range(3)]
    texts = [(f"{n}.txt", b"a cat") for n in range(3)]
    records, issues = looked_over(write_tar(tmp_path / "a.tar", pictures + texts))
    assert records == []
    assert [issue.kind for issue in issues if issue.where.number in (1, 4)] == ["no_text", "no_image", "duplicate_id"]
    assert "3 samples in pieces" in str(issues[-1])
    apart = [(f"img/{name}", data) for name, data in pictures] + [(f"txt/{name}", data) for name, data in texts]
    records, issues = looked_over(write_tar(tmp_path / "b.tar", apart))
    assert records == []
    assert "3 pictures with a text of the same name in another folder" in str(issues[-1])


def test_failed_downloads_say_why(tmp_path: Path) -> None:
    failed = json.dumps({"caption": "a cat", "status": "failed_to_download", "error_message": "404"}).encode()
    members = [("1.json", failed), ("1.txt", b"a cat"), ("2.png", picture(1)), ("2.json", b'{"status": "success"}')]
    members += [("2.txt", b"a dog")]
    records, issues = looked_over(write_tar(tmp_path / "a.tar", members))
    assert [record.id for record in records] == ["2"]
    assert kinds(issues) == [(1, "no_image")]
    assert "was not downloaded: status 'failed_to_download', '404'" in str(issues[0])


def test_captions_need_their_one_picture(tmp_path: Path) -> None:
    members = [("1.txt", b"a cat"), ("2.png", picture(1)), ("2.0.png", picture(2)), ("2.txt", b"two cats"),
               ("3.png", picture(3)), ("4.png", picture(4)), ("4.txt", b"")]  # fmt: skip
    records, issues = looked_over(write_tar(tmp_path / "a.tar", members))
    assert records == []
    assert kinds(issues) == [(1, "no_image"), (2, "image_count"), (3, "no_text"), (4, "no_text")]


def test_braces_name_shards_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrea.data.readers.braces.MOST", 100)
    for number in range(12):
        write_tar(tmp_path / f"s-{number:03}.tar", [("1.png", picture(1)), ("1.txt", b"a cat")])
    (source,) = open_sources(str(tmp_path / "s-{000..011}.tar"))
    assert len(source.reader) == 12
    (source,) = open_sources(str(tmp_path / "s-{001,00{4..5}}.tar"))
    assert [path.name for path in source.reader.paths] == ["s-001.tar", "s-004.tar", "s-005.tar"]
    with pytest.raises(AstreaError, match=r"s-012\.tar does not exist"):
        open_sources(str(tmp_path / "s-{010..012}.tar"))
    with pytest.raises(AstreaError, match="names more than"):
        open_sources(str(tmp_path / "s-{0..99999999999}.tar"))


def test_a_file_that_has_a_patterns_name_is_that_file(tmp_path: Path) -> None:
    folder = tmp_path / "b[2]"
    folder.mkdir()
    for name in ("a[1].tar", "{x,y}.tar", "1.tar"):
        write_tar(folder / name, [("1.png", picture(1)), ("1.txt", name.encode())])
        (source,) = open_sources(str(folder / name))
        assert [record.captions for record in source.reader] == [(name,)]
    with pytest.raises(AstreaError, match="no data file is called"):
        open_sources(str(tmp_path / "gone[1].tar"))
