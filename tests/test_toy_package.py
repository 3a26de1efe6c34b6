"""An installed package from elsewhere: everything that it brings works by recipe lines alone."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import astrea
from astrea.evaluation.evaluate import evaluate_and_report
from astrea.recipes.saved import read_recipe
from astrea.training.losses.protocol import InstructLoss
from astrea.training.losses.registry import loss_class
from command_line import Astrea
from repository import FIXTURES

PACKAGE = FIXTURES / "toy_package"
LINES = (
    "red.png | what colour is the sun? | red",
    "blue.png | what colour is the sun? | blue",
    "red.png | is it dark? | no",
    "blue.png | is it dark? | yes",
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as pip leaves it: its modules on the path, and beside them what it says of itself."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"toy_astrea-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {path}\n" for name, path in points.items()) for group, points in groups
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "toy_astrea"]:
        del sys.modules[name]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two pictures, and four questions about them in the package's own format."""
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "album.txt").write_text("\n".join(LINES))
    return tmp_path / "album.txt"


@pytest.mark.usefixtures("installed")
def test_three_steps_by_recipe_lines_alone(small_recipe: Path, album: Path, tmp_path: Path):
    stages = {stage: {"steps": 1, "batch": 2} for stage in ("align", "fuse", "tune")}
    losses = {"lm": 1.0, "gate_entropy": 0.5}
    model_folder = astrea.train(
        small_recipe,
        tmp_path / "run",
        **{
            "experts.brightness": {"kind": "brightness", "options": {"middle": 0.25}},
            "model.strategy": "toy_mean",
            "model.options": {"scale": 0.5},
            "data.train": [{"path": str(album), "format": "toy_lines"}],
            "evaluation.tasks": ["toy_brightness"],
            **stages,
            "fuse.losses": losses,
            "tune.losses": losses,
        },
    )
    model = astrea.load(model_folder, device="cpu")  # its names are registered, so nothing has to be trusted
    assert model.model.experts["brightness"].middle == 0.25
    assert type(model.model.fusion).__name__ == "MeanToken"
    assert model.model.num_visual_tokens == 1
    said = model.ask(tmp_path / "red.png", "is it dark?")
    assert said.readings["brightness"].labels == ["bright"]
    logged = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    entropies = [value for row in logged for key, value in row.items() if "gate_entropy" in key]
    assert entropies
    assert all(value > 0 for value in entropies)
    run = tmp_path / "run"
    results = evaluate_and_report(read_recipe(run), run)
    assert results is not None
    assert results["tasks"]["bright_or_dark"]["n"] == 2
    assert loss_class(InstructLoss, "gate_entropy").__module__ == "toy_astrea.loss"


@pytest.mark.usefixtures("installed")
def test_the_data_format_is_known_to_the_command_line(astrea: Astrea, album: Path):
    result = astrea("validate", album, "--format", "toy_lines", "--json")
    assert result.code == 0, result.err
    assert [(row["format"], row["records"]) for row in json.loads(result.out)["files"]] == [("toy_lines", len(LINES))]
