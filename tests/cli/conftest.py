from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import Astrea, Result
from PIL import Image

from astrea import cli
from astrea.scenes.draw import split_scene


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def astrea(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Astrea:
    """Runs a command in this process, through the entry point; anything but an exit status would be a traceback."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["astrea", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "scene.png"
    Image.fromarray(split_scene("test", 0, 0).image).save(path)
    return path


@pytest.fixture(scope="module")
def short(small_overrides: list[str]) -> list[str]:
    return [*small_overrides, "align.steps=5", "fuse.steps=2", "tune.steps=4"]
