"""`astrea index`, and `astrea retrieve` with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albums import COUNT, TEXT, paths_of
from astrea.retrieval.store import FOLDER


def test_index_and_retrieve(astrea, album, tiny_folder, tmp_path):
    out = tmp_path / "index [of] pictures"
    code, said, _ = astrea("index", tiny_folder, album, "--out", out)
    assert code == 0
    assert "6 pictures: 6 encoded, 0 known already" in said
    assert str(out) in said
    assert "0 encoded, 6 known" in astrea("index", tiny_folder, album, "--out", out)[1]
    code, said, _ = astrea("retrieve", tiny_folder, out, TEXT, "--top", 3, "--json")
    assert code == 0
    hits = json.loads(said)
    assert len(hits) == 3
    assert all(Path(hit["image"]).is_file() for hit in hits)
    plain = json.loads(astrea("retrieve", tiny_folder, album, TEXT, "--top", 3, "--json")[1])
    assert [Path(hit["image"]).name for hit in plain] == [Path(hit["image"]).name for hit in hits]
    code, said, _ = astrea("retrieve", tiny_folder, out, "--image", album / "a.png", "--top", 1)
    assert code == 0
    score, path = said.split(maxsplit=1)
    assert (float(score), Path(path.strip()).name) == (1.0, "a.png")
    cosines = json.loads(astrea("retrieve", tiny_folder, out, TEXT, "--rerank", 0, "--json")[1])
    assert all(-1 <= hit["score"] <= 1 for hit in cosines)


def test_an_index_within_the_folder_is_found(astrea, album, tiny_folder):
    assert astrea("index", tiny_folder, album)[0] == 0
    code, _, err = astrea("retrieve", tiny_folder, album, TEXT, "--json")
    assert code == 0
    assert "looking again" in err
    assert "changed" not in err
    (album / "a.png").unlink()
    assert "1 picture has changed" in astrea("retrieve", tiny_folder, album, TEXT, "--rerank", 0, "--json")[2]


def test_left_out_pictures_give_status_1(astrea, album, tiny_folder):
    (album / "c.jpg").write_bytes(b"\xff\xd8\xff")
    code, said, err = astrea("index", tiny_folder, album)
    assert code == 1
    assert "6 pictures" in said
    assert "1 left out" in said
    assert "left out: image" in err
    assert len(paths_of(album / FOLDER)) == COUNT


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["retrieve"], 2, "Missing argument 'FOLDER'"),
        (["retrieve", "MODEL", "ALBUM"], 2, "TEXT"),
        (["retrieve", "--image", "ALBUM/a.png"], 2, "Missing argument 'FOLDER'"),
        (["retrieve", "MODEL", "ALBUM", "a sun", "--image", "ALBUM/a.png"], 2, "not both"),
        (["retrieve", "MODEL", "ALBUM", "--image", "ALBUM/a.png"], 1, "astrea index"),
        (["retrieve", "MODEL", "ALBUM", "a sun", "--rerank", "-1"], 2, "--rerank"),
        (["index"], 2, "Missing argument"),
        (["index", "MODEL"], 2, "Missing argument 'FOLDER'"),
        (["index", "MODEL", "ALBUM/none"], 1, "is not a folder"),
        (["index", "MODEL", "ALBUM", "--out", "ALBUM/a.png"], 1, "is a file"),
    ],
)
def test_misuse(astrea, album, tiny_folder, words, code, said):
    words = [word.replace("ALBUM", str(album)).replace("MODEL", str(tiny_folder)) for word in words]
    found = astrea(*words)
    assert found[0] == code
    assert said in found[1] + found[2]
