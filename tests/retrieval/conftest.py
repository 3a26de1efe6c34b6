from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from albums import NAMES, draw
from astrea.common.progress import Reporter
from astrea.retrieval import build
from astrea.retrieval.build import build_index
from astrea.retrieval.pictures import picture_vectors
from astrea.retrieval.store import FOLDER


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    album = tmp_path_factory.mktemp("drawn")
    for number, name in enumerate(NAMES):
        draw(album / name, number)
    (album / "notes.txt").write_text("no picture")
    return album


@pytest.fixture
def album(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "album"))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the model looked at, batch by batch."""
    batches: list[int] = []

    def counting(model, arrays):
        batches.append(len(arrays))
        return picture_vectors(model, arrays)

    monkeypatch.setattr(build, "picture_vectors", counting)
    return batches


@pytest.fixture
def index(tiny_model):
    def index(album: Path, out: Path | None = None, *, model=tiny_model, report: Reporter | None = None, **options):
        return build_index(model, "tiny", album, out or album / FOLDER, report=report or Reporter(), **options)

    return index
