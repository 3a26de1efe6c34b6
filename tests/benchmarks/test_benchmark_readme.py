"""What the pages say: figures of committed results, commands whose keys exist, and words that need no dictionary."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from astrea.recipes.based import is_shipped
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from benchmark_scripts import benchmark_script

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (
    "README.md",
    "docs/arena.md",
    "docs/estimate.md",
    "docs/add-an-expert.md",
    "docs/photographs.md",
    "docs/serving.md",
)
OF_THE_PAST = {"lab-notes.md"}
"""Pages that say what was done then, with the keys of then."""

TRAINING = re.compile(r"astrea train (\w+) ([^`\n#]*)")


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_that_of_a_committed_result(page):
    script = benchmark_script("readme")
    assert set(script.PAGES) == set(PAGES)
    assert script.filled(page) == (ROOT / page).read_text(), "run python benchmarks/readme.py"


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    """Every training that a page shows: page, recipe, its KEY=VALUE words."""
    found = []
    for page in (README, *sorted((ROOT / "docs").glob("*.md"))):
        if page.name in OF_THE_PAST:
            continue
        for recipe, rest in TRAINING.findall(page.read_text().replace("\\\n", " ")):
            for part in rest.split("&&")[:1]:
                words = [word for word in shlex.split(part) if re.match(r"[a-z_.]+=", word)]
                # What stands for something of the reader's is in capitals.
                kept = [word for word in words if not re.search(r"=.*[A-Z]{4}", word)]
                if kept and is_shipped(recipe):
                    found.append((page.name, recipe, tuple(kept)))
    return found


def test_there_are_commands():
    assert len(commands()) > 8


@pytest.mark.parametrize(("page", "recipe", "words"), commands())
def test_a_shown_command_names_keys_that_exist(page, recipe, words):
    assert load_recipe(Recipe, recipe, words)


def test_the_readme_shows_what_experts_see_before_any_table_and_says_it_in_common_words():
    text = README.read_text()
    assert text.index("![") < text.index("| --- ")
    assert not set(re.findall(r"[a-z]+", text.lower())) & {"thrift", "newcomer", "liar", "contestant", "distrusted"}
    for word in ("blind", "share"):
        defined = re.search(rf"\*{word}\*", text)
        assert defined, f"{word} is explained nowhere"
        before = re.findall(rf"\b{word}\b", text[: defined.start()].lower())
        assert before == [], f"{word} is used before it is explained"
