"""What is wrong with a recipe beyond its form: kinds of experts and files that are not there, before anything is
computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from astrea.common.errors import AstreaError
from astrea.common.installation import SHIPPED_NAME, SHIPPED_NEUTRAL_NAME
from astrea.common.paths import exists, hint_for, is_file, missing
from astrea.data.readers.sources import matching_files
from astrea.experts.bank import expert_class
from astrea.language.gguf_source import check_source
from astrea.recipes.evaluation import TASKS
from astrea.recipes.recipe import Recipe, TrainFile
from astrea.recipes.trail import Trail, dotted
from astrea.recipes.tree import Tree


def amiss(recipe: Recipe, written: Tree) -> list[str]:
    """Every fault that can be seen without reading data or weights, each with the file and line that wrote it."""
    return [f"{written.origin(trail)}: {dotted(trail)!r}: {said}" for trail, said in _faults(recipe)]


def _faults(recipe: Recipe) -> Iterator[tuple[Trail, str]]:
    teachers = {} if recipe.distill is None else recipe.distill.teachers
    named = [(("experts", name), entry) for name, entry in recipe.experts.items()]
    for where, entry in [*named, *((("distill", "teachers", name), entry) for name, entry in teachers.items())]:
        try:
            expert_class(entry.kind, allow_import=True)
        except AstreaError as error:
            yield (*where, "kind"), f"{error.message} -> {error.hint}"
    for number, task in enumerate(recipe.evaluation.entries):
        try:
            TASKS.find(task.task, allow_import=True)
        except AstreaError as error:
            yield ("evaluation", "tasks", number), f"{error.message} -> {error.hint}"
    try:
        check_source(recipe.llm)
    except AstreaError as error:
        yield ("llm", "checkpoint"), f"{error.message} -> {error.hint}"
    packaged = (SHIPPED_NAME, SHIPPED_NEUTRAL_NAME, "scratch")
    if recipe.pretrain not in packaged and not is_file(f"{recipe.pretrain}/card.json"):
        yield ("pretrain",), f"{recipe.pretrain}/card.json {missing(f'{recipe.pretrain}/card.json')}"
    keys: tuple[Literal["train", "validation"], ...] = ("train", "validation")
    for key in keys:
        alone = isinstance(getattr(recipe.data, key), str)
        for number, file in enumerate(recipe.data.entries(key)):
            trail: Trail = ("data", key) if alone else ("data", key, number)
            yield from ((trail, said) for said in _data_faults(file))
    if recipe.data.images is not None and not exists(recipe.data.images):
        yield ("data", "images"), f"{recipe.data.images} does not exist"


def _data_faults(entry: str | TrainFile) -> Iterator[str]:
    path = entry if isinstance(entry, str) else entry.path
    try:
        for file in matching_files(path):
            if not is_file(file):
                hint = hint_for(file)
                yield f"{file} {missing(file)}" + (f" -> {hint}" if hint else "")
    except AstreaError as error:
        yield error.message
    if isinstance(entry, TrainFile) and entry.images is not None and not exists(entry.images):
        yield f"{entry.images} does not exist"
