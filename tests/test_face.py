"""The package's Python face: `astrea.load`, `train`, `evaluate`, and that none of its functions demands a reporter."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import astrea
from astrea.common.errors import AstreaError
from astrea.training.train import as_overrides
from repository import ROOT

QUESTION = "what colour is the cat?"


@pytest.fixture(scope="module")
def loaded() -> astrea.LoadedModel:
    return astrea.load(device="cpu")


def test_every_name_of_the_face_is_there_and_documented():
    for name in astrea.__all__:
        assert getattr(astrea, name).__doc__, name
    assert set(astrea.__all__) <= {*astrea._WHERE, "AstreaError", "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        astrea.nonsense  # noqa: B018


def test_the_face_is_typed():
    assert (ROOT / "src" / "astrea" / "py.typed").exists()
    source = (ROOT / "src" / "astrea" / "__init__.py").read_text()
    typed = source[source.index("if TYPE_CHECKING:") : source.index("__all__")]
    assert all(target.replace(":", " import ").split(" import ")[0] in typed for target in astrea._WHERE.values())


def test_a_loaded_model_is_asked(loaded: astrea.LoadedModel):
    answer = loaded.ask(astrea.example_picture(), QUESTION)
    assert answer.answer == "green"
    assert answer.masking == {}
    why = loaded.explain(astrea.example_picture(), QUESTION)
    assert (why.answer, why.shares) == (answer.answer, pytest.approx(answer.shares, abs=1e-5))
    assert set(why.masking) == set(why.shares) == set(loaded.model.experts.names)
    model, processor = loaded
    assert astrea.explain(model, processor, astrea.example_picture(), QUESTION, masking=False).answer == "green"


def test_a_saved_model_loads_with_another_type_of_numbers(loaded: astrea.LoadedModel, tmp_path: Path):
    loaded.save(tmp_path / "copy")
    half = astrea.load(tmp_path / "copy", device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half.ask(astrea.example_picture(), QUESTION).answer == "green"
    for wrong in ("int8", "nonsense", torch.int64):
        with pytest.raises(AstreaError, match="no floating-point type"):
            astrea.load(tmp_path / "copy", dtype=wrong)


def test_changes_of_a_recipe_become_overrides():
    changes = {
        "seed": 1,
        "tune.steps": 100,
        "align": {"steps": 5, "losses": {"itc": 1.0}},
        "data": {"train": Path("a.json")},
    }
    said = dict(as_overrides(changes))
    assert said == {
        "seed": "1",
        "tune.steps": "100",
        "align.steps": "5",
        "align.losses.itc": "1.0",
        "data.train": '"a.json"',
    }
    assert yaml.safe_load(dict(as_overrides({"name": 'it\'s "ü"'}))["name"]) == 'it\'s "ü"'
    with pytest.raises(AstreaError, match="seed: a recipe holds no set"):
        list(as_overrides({"seed": {1}}))


def test_train_and_evaluate(small_recipe: Path, tmp_path: Path, few_scenes: None):
    steps = {f"{stage}.steps": 1 for stage in ("align", "fuse", "tune")}
    model = astrea.train(small_recipe, tmp_path / "run", seed=3, **steps)
    assert model == tmp_path / "run" / "model"
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["seed"] == 3
    loaded = astrea.load(model, device="cpu")
    results = astrea.evaluate(loaded, tasks=["counting"])
    assert results["tasks"].keys() == {"counting"}
    for wrong, said in (({"tasks": ["sums"]}, "unknown task"), ({"limit": 3}, "data of your own")):
        with pytest.raises(AstreaError, match=said):
            astrea.evaluate(loaded, **wrong)
    with pytest.raises(AstreaError, match="leave tasks or data out"):
        astrea.evaluate(loaded, "held.jsonl", tasks=["counting"])


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and every constructor and public method, of the package."""
    for found in pkgutil.walk_packages(astrea.__path__, "astrea."):
        if found.name in ("astrea.__main__", "astrea.lmms") or any(p.startswith("_") for p in found.name.split(".")):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != found.name:
                continue
            if inspect.isfunction(value):
                yield f"{found.name}.{name}", value
            elif inspect.isclass(value):
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and (method == "__init__" or not method.startswith("_")):
                        yield f"{found.name}.{name}.{method}", function


def test_no_public_function_demands_a_reporter():
    demanding = [
        where
        for where, function in public_functions()
        for name, given in inspect.signature(function).parameters.items()
        if name == "report"
        and given.kind is inspect.Parameter.KEYWORD_ONLY
        and given.default is inspect.Parameter.empty
    ]
    assert demanding == []
