from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from astrea.world.scenes.draw import split_scene


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "scene.png"
    Image.fromarray(split_scene("test", 0, 0).image).save(path)
    return path


@pytest.fixture(scope="module")
def short(small_overrides: list[str]) -> list[str]:
    return [*small_overrides, "align.steps=5", "fuse.steps=2", "tune.steps=4"]
