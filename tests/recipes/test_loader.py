"""Recipes: what is accepted, what is refused, and that every refusal names the place and the remedy."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from astrea.common.errors import AstreaError
from astrea.recipes import based, loader
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.tree import read_value
from astrea.recipes.yaml import write as write_yaml


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expert(Strict):
    width: int = 8
    kind: Literal["conv", "vit", "edges"] = "conv"


class Pull(Strict):
    name: Literal["pull"]
    temperature: float = 0.1


class Push(Strict):
    name: Literal["push"]
    margin: float = 1.0


class Optimizer(Strict):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    fused: bool = False


class Recipe(Strict):
    steps: int = Field(10, ge=1)
    label: str = ""
    cache: Path | None = None
    optimizer: Optimizer = Optimizer()
    experts: dict[str, Expert] = {}
    stages: list[Optimizer] = []
    objective: Annotated[Pull | Push, Field(discriminator="name")] | None = None
    layers: int | Literal["all"] = "all"

    @model_validator(mode="after")
    def _not_thirteen(self) -> Recipe:
        if self.steps == 13:
            raise ValueError("thirteen steps are unlucky")
        return self


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def refusal(path: str, *overrides: str) -> AstreaError:
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, path, overrides)
    return caught.value


def test_a_whole_recipe(write):
    path = write(
        """
steps: 1_000
label: on
cache: out/cache
optimizer: {lr: 1e-3, betas: [0.5, 1], fused: true}
experts:
  a: &a {width: 010, kind: vit}
  b: *a
stages:
  - lr: .5
  - {}
objective: {name: push, margin: .inf}
layers: 3
"""
    )
    recipe = load_recipe(Recipe, path)
    assert recipe.steps == 1000
    assert recipe.label == "on"
    assert recipe.cache == Path("out/cache")
    assert recipe.optimizer == Optimizer(lr=1e-3, betas=(0.5, 1.0), fused=True)
    assert recipe.experts == {"a": Expert(width=10, kind="vit"), "b": Expert(width=10, kind="vit")}
    assert [s.lr for s in recipe.stages] == [0.5, 1e-3]
    assert recipe.objective == Push(name="push", margin=math.inf)
    assert recipe.layers == 3


def test_a_shipped_name_wins_over_a_file_of_that_name(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "tiny.yaml").write_text("steps: 7")
    (tmp_path / "tiny").write_text("steps: 8")
    monkeypatch.setattr(based, "SHIPPED", shipped)
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Recipe, "tiny").steps == 7
    assert load_recipe(Recipe, "./tiny").steps == 8
    assert loader.shipped_recipes() == ["tiny"]
    error = refusal("tinny")
    assert "'tinny'" in error.message
    assert "Did you mean 'tiny'" in error.hint
    assert "a folder" in refusal(str(shipped)).message


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        ("steps: 3\nstepz: 4\n", 2, ["'stepz'", "steps, label"], "Did you mean 'steps'?"),
        ("\noptimizer:\n  lr: 1\n  beta: 2\n", 4, ["'optimizer.beta'", "lr, betas, fused"], "'optimizer.betas'"),
        ("experts:\n  a:\n    widht: 3\n", 3, ["'experts.a.widht'", "width, kind"], "'experts.a.width'"),
        ("stages:\n- lr: 1\n- lr: 1\n  rl: 2\n", 4, ["'stages.1.rl'"], "'stages.1.lr'"),
        ("steps: many\n", 1, ["'steps'", "a whole number", "'many'"], ""),
        ("steps: 1.0\n", 1, ["a whole number", "1.0"], "Write 1."),
        ("steps: true\n", 1, ["a whole number", "true"], ""),
        ("steps: '3'\n", 1, ["a whole number", "'3'"], ""),
        ("steps: 0\n", 1, ["greater than or equal to 1", "got 0"], ""),
        ("steps:\n", 1, ["a whole number", "null"], ""),
        ("label: 2024\n", 1, ["'label'", "text", "2024"], "quotes"),
        ("optimizer:\n  fused: yes\n", 2, ["'optimizer.fused'", "true or false", "'yes'"], "true or false"),
        ("optimizer:\n  lr: 1:30\n", 2, ["a number", "'1:30'"], ""),
        ("optimizer:\n  betas: [1, x]\n", 2, ["'optimizer.betas.1'", "a number"], ""),
        ("optimizer: fast\n", 1, ["'optimizer'", "a mapping"], ""),
        ("experts:\n  a:\n    kind: vitt\n", 3, ["'conv', 'vit' or 'edges'", "'vitt'"], "Did you mean 'vit'?"),
        ("objective: {name: pul}\n", 1, ["'objective.name'", "'pull', 'push'"], "Did you mean 'pull'?"),
        ("objective:\n  name: pull\n  margin: 2\n", 3, ["'objective.margin'", "keys: name, temperature"], "Remove"),
        ("objective:\n  name: push\n  margin: a\n", 3, ["'objective.margin'", "a number"], ""),
        ("layers: some\n", 1, ["'layers'", "'all'"], ""),
        ("label: a\nsteps: 13\n", 1, ["unlucky"], ""),
        ("steps: 1\nlabel: a\nsteps: 2\n", 3, ["'steps' is written twice", "line 1"], ""),
        ("optimizer:\n  lr: 1\n  lr: 1\n", 3, ["'optimizer.lr' is written twice"], ""),
        ("label: a\n? [1, 2]\n: 3\n", 2, ["a key is a sequence"], ""),
        ("a: 1\nb: [1\n", 3, ["not valid YAML"], ""),
        ("steps: 1\n---\nsteps: 2\n", 2, ["not valid YAML"], ""),
        ("label: a\n\tb: 1\n", 2, ["not valid YAML"], ""),
        ("steps: 1\nlabel: !!python/object/apply:os.system [ls]\n", 2, ["tag", "os.system"], "Remove the tag"),
        ("label: !secret x\n", 1, ["tag '!secret'"], ""),
        ("steps: !!int many\n", 1, ["not a whole number"], ""),
        ("label: *nowhere\n", 1, ["not valid YAML", "nowhere"], ""),
        ("a: 1\nlabel: a\x00b\n", 2, ["not valid YAML"], ""),
        ('label: "\\ud800"\n', 1, ["half of a character"], ""),
        ("a: 1\nlabel: \udce9", 2, ["UTF-8"], "UTF-8"),
        ("- 1\n- 2\n", 1, ["mapping", "sequence"], "key: value"),
        ("just words\n", 1, ["mapping"], ""),
        ("steps: " + "9" * 5000, 1, ["not a whole number", "..."], ""),
    ],
)
def test_refusals_name_the_line_the_key_and_the_remedy(write, text, line, said, hint):
    path = write(text.encode("utf-8", "surrogateescape"))
    error = refusal(path)
    assert f"{path}, line {line}:" in error.message
    for words in said:
        assert words in error.message
    assert hint in error.hint
    assert error.hint


def test_several_problems_are_told_at_once(write):
    error = refusal(write("steps: a\noptimizer:\n  lr: b\nlable: c\n"))
    assert [f"line {n}:" in error.message for n in (1, 3, 4)] == [True] * 3
    assert error.message.count("\n") == 2
    many = refusal(write("".join(f"wild{n}: 1\n" for n in range(4000))))
    assert "and 3992 more" in many.message


@pytest.mark.parametrize("text", ["%YAML 1.3\n---\nsteps: 1\n", "%YAML 9.9\n---\nsteps: 1\n"])
def test_another_version_of_yaml_is_refused(write, text):
    error = refusal(write(text))
    assert "run.yaml" in error.message
    assert "not valid YAML" in error.message


@pytest.mark.parametrize(
    ("said", "value"),
    [
        *[(text, text) for text in ("on", "no", "Yes", "n", "1:30", "2024-01-01", "<<", "=", "0b11", "1e", "-_", ".")],
        *[("010", 10), ("0o17", 15), ("0x1f", 31), ("1_000", 1000), ("+3", 3), ("-0", 0)],
        *[(".5e3", 500.0), ("1e3", 1000.0), ("1.", 1.0), ("-.inf", -math.inf), ("6.02E+23", 6.02e23)],
        *[("TRUE", True), ("false", False), ("~", None), ("Null", None), ("", None), ("'1'", "1"), ("!!str 1", "1")],
    ],
)
def test_scalars_are_those_of_yaml_1_2(said, value):
    for version in ("", "%YAML 1.1\n---\n"):
        read = read_value(f"{version}[{said}, {{a: {said}}}]" if said else f"{version}- \n- {{a: }}", "here")
        assert read == [value, {"a": value}]
        assert type(read[0]) is type(value)
    assert read_value(write_yaml([value]), "here") == [value]


def test_an_anchor_may_be_set_again_without_a_word(write, recwarn):
    recipe = load_recipe(Recipe, write("label: &a x\nexperts: {b: &a {width: 3}, c: *a}\n"))
    assert recipe.experts["b"] == recipe.experts["c"] == Expert(width=3)
    assert not recwarn.list


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_recipe_is_refused(write, text):
    assert "empty" in refusal(write(text)).message


def test_oversized_and_explosive_files_are_refused(write):
    assert "larger than 1024 KiB" in refusal(write("#" * ((1 << 20) + 1))).message
    laughs = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    for bomb in (laughs, "a: &a [*a]\n", "a: &a {b: *a}\n", "a: " + "[" * 5000, "a: [" + "1," * 20_000 + "]"):
        assert "aliases counted" in refusal(write(bomb)).message


def test_overrides(write):
    path = write("steps: 3\nexperts:\n  a: {width: 1}\nstages: [{lr: 1}, {lr: 2}]\noptimizer:\n")
    recipe = load_recipe(
        Recipe,
        path,
        ["steps=4", "steps=5", "experts.b.kind=vit", "stages.1.lr=1e-4", "optimizer.betas=[0, 0]", "label=a=b"],
    )
    assert recipe.steps == 5
    assert recipe.experts["a"].width == 1
    assert recipe.experts["b"] == Expert(kind="vit")
    assert [s.lr for s in recipe.stages] == [1.0, 1e-4]
    assert recipe.optimizer.betas == (0.0, 0.0)
    assert recipe.label == "a=b"
    assert load_recipe(Recipe, write("cache: a"), ["cache="]).cache is None


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("stpes=3", "'stpes'", "Did you mean 'steps'?"),
        ("optimizer.rl=3", "'optimizer.rl'", "Did you mean 'optimizer.lr'?"),
        ("optimiser.lr=3", "'optimiser'", "Did you mean 'optimizer'?"),
        ("steps=many", "a whole number", ""),
        ("experts.a={width: 1, wdith: 2}", "'experts.a.wdith'", "'experts.a.width'"),
        ("experts.a={width: 1, width: 2}", "'experts.a.width' is written twice", ""),
        ("objective={temperature: 1}", "'objective'", ""),
        ("steps", "not an override", "dotted.key=value"),
        ("=3", "not an override", ""),
        ("a..b=3", "not an override", ""),
        ("steps.more=3", "a single value", "as a whole"),
        ("stages.7.lr=3", "a list of 0", ""),
        ("stages.x=3", "a list of 0", ""),
        ("label=[1", "not valid YAML", ""),
        ("label=!!python/name:os.system", "tag", ""),
        ("label=&a [*a]", "aliases", ""),
        ("\udce9=1", "half of a character", ""),
        ("label=\udce9", "not valid YAML", ""),
        (".".join("a" * 3000) + "=1", "deeper", ""),
    ],
)
def test_a_bad_override_names_itself(write, text, said, hint):
    error = refusal(write("steps: 1\nstages: []\n"), text)
    assert "command line: " in error.message
    assert text[:70].encode("unicode_escape").decode() in error.message
    assert said in error.message
    assert hint in error.hint


def test_an_override_does_not_hide_the_line_of_its_neighbours(write):
    error = refusal(write("optimizer:\n  lr: x\n  fused: false\n"), "optimizer.fused=true")
    assert "line 2: 'optimizer.lr'" in error.message
    assert "command line" not in error.message


words = st.text(max_size=8)
numbers = st.floats(allow_nan=False)
recipes = st.builds(
    Recipe,
    steps=st.integers(min_value=14),
    label=words | st.sampled_from(["on", "null", "1e-3", "~", "<<", "=", "010", "a: b", "- a", "", "1_0", "\x85"]),
    cache=st.none() | st.just(Path("a/b")),
    optimizer=st.builds(Optimizer, lr=numbers, betas=st.tuples(numbers, numbers), fused=st.booleans()),
    experts=st.dictionaries(words, st.builds(Expert, width=st.integers()), max_size=3),
    stages=st.lists(st.builds(Optimizer, lr=numbers), max_size=2),
    objective=st.none() | st.builds(Pull, name=st.just("pull")) | st.builds(Push, name=st.just("push")),
    layers=st.integers() | st.just("all"),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=recipes)
def test_a_dumped_recipe_reads_back_equal(write, recipe):
    assert load_recipe(Recipe, write(dump_recipe(recipe))) == recipe


plain = "steps optimizer lr experts objective name pull layers : [ ] { } &a *a !!int !x << ? > # 1 1e-3 .inf ~ on 0x"
breaks = [
    "\n",
    "\n  ",
    "\n- ",
    "|\n",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\t",
    "\x00",
    "\ufeff",
    "\\",
    "\\ud800",
    "'",
    '"',
]
pieces = st.sampled_from([*re.findall(r"\S+", plain), *breaks, ": ", ", ", "- ", "é"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(pieces, max_size=25).map("".join).map(str.encode) | st.binary(max_size=60),
    overrides=st.lists(st.lists(pieces, max_size=8).map("".join) | words.map("label={}".format), max_size=2),
)
def test_wild_yaml_gives_a_valid_recipe_or_a_plain_error(write, text, overrides):
    path = write(text)
    for given_overrides in ([], overrides):
        try:
            recipe = load_recipe(Recipe, path, given_overrides)
        except AstreaError as error:
            assert "\n  -> " in str(error)  # noqa: PT017
        else:
            assert Recipe.model_validate(recipe.model_dump()) == recipe or "nan" in repr(recipe)


# Taking an entry out


def test_null_takes_an_entry_out_of_a_mapping_of_parts(write):
    path = write("experts: {a: {width: 3}, b: {width: 4}, c: {}}")
    assert list(load_recipe(Recipe, path, ["experts.b=null"]).experts) == ["a", "c"]
    assert list(load_recipe(Recipe, path, ["experts.b=", "experts.a=~"]).experts) == ["c"]
    back = load_recipe(Recipe, path, ["experts.b=null", "experts.b.width=9"]).experts
    assert list(back) == ["a", "c", "b"]
    assert back["b"].width == 9


def test_null_is_a_value_where_a_key_may_have_none(write):
    path = write("cache: a\nobjective: {name: push}")
    changed = load_recipe(Recipe, path, ["cache=null", "objective=null"])
    assert (changed.cache, changed.objective) == (None, None)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("experts.z=null", "no 'experts.z' to take out"),
        ("experts.a.width=null", "a whole number"),
        ("stages.0=null", "a mapping"),
        ("optimizer=null", "a mapping"),
    ],
)
def test_null_elsewhere_is_refused(write, override, said):
    assert said in str(refusal(write("experts: {a: {width: 3}}\nstages: [{}]"), override))


def test_a_part_that_is_needed_cannot_be_taken_out_unnoticed(write):
    error = refusal(write("experts: {a: {kind: vit}}"), "experts.a=null", "experts.a.kinds=vit")
    assert "experts.a.kinds" in str(error)
    assert "command line" in str(error)
