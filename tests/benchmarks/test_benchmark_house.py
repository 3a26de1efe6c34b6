"""The figures of benchmarks/house.py, on a package small enough to count by hand, and on this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_scripts import benchmark_script

FILES = {
    "src/astrea/__init__.py": "from astrea.model.modeling import AstreaModel\n",
    "src/astrea/common/__init__.py": "",
    "src/astrea/common/errors.py": '"""Errors."""\n\n\nclass Told(Exception):\n    """Said."""\n',
    "src/astrea/model/__init__.py": "",
    "src/astrea/model/modeling.py": """from typing import TYPE_CHECKING
from astrea.common import errors
import astrea.data
if TYPE_CHECKING:
    from astrea import training
class AstreaModel:
    @staticmethod
    def forward(self, a, *, b=1, **more):
        from astrea.model import parts
        return parts.shop(errors.Told)
""",
    "src/astrea/model/parts.py": "from astrea.model import modeling\ndef shop(honest):\n    return honest\n",
    "src/astrea/data.py": "from astrea.model.parts import shop\nfrom numpy import array\n",
    "src/astrea/training.py": "",
    "tests/test_one.py": "\n" * 13,
    "docs/glossary.md": "| **adapter** | a |\n| **gate** | b |\n| plain | c |\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_figures_of_a_small_package_are_those_counted_by_hand(checkout):
    figures = benchmark_script("house").measure(checkout, step=False)
    assert figures["rooms"] == 5  # __init__, common, model, data, training
    # The face -> model, model -> common, model -> data, data -> model; a type checker's import is none.
    assert figures["arrows_between_rooms"] == 4
    assert figures["arrows_in_circles"] == 2
    assert figures["module_circles"] == 1
    assert figures["imports_inside_functions"] == 1
    assert (figures["files"], figures["root_files"]) == (8, 3)
    assert figures["largest_file"] == {"path": "model/modeling.py", "lines": 10}
    assert figures["largest_function"] == {"name": "model/modeling.py: forward", "lines": 4}
    assert figures["forward"] == {"lines": 4, "parameters": 3}
    assert figures["tests_per_source_line"] == round(13 / figures["lines"], 2)
    assert figures["glossary_terms"] == 2
    # told (the class, and where it is used), shop (twice), honest (twice), parts (once).
    assert (figures["private_words"], figures["private_word_uses"]) == (4, 7)
    assert figures["documented_public_names"] == round(1 / 4, 3)


@pytest.mark.slow
def test_one_training_step_is_followed_through_the_package(tmp_path):
    benchmark = benchmark_script("house")
    results = benchmark.main(["--out", str(tmp_path / "house.json")])
    step = results["now"]["one_training_step"]
    assert step["files"] < step["functions"] < step["lines"] < results["now"]["lines"]
    assert step["files"] > 10
