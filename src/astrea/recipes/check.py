"""What is wrong with a recipe beyond its form: kinds of experts and files that are not there, before anything is
computed."""

from __future__ import annotations

from collections.abc import Iterator

from astrea.common.errors import AstreaError
from astrea.common.paths import exists, hint_for, is_file, missing
from astrea.data.readers.sources import matching_files
from astrea.experts.bank import expert_class
from astrea.recipes.recipe import Run, TrainFile
from astrea.recipes.trail import Trail, dotted
from astrea.recipes.tree import Tree


def amiss(run: Run, recipe: Tree) -> list[str]:
    """Every fault that can be seen without reading data or weights, each with the file and line that wrote it."""
    return [f"{recipe.origin(trail)}: {dotted(trail)!r}: {said}" for trail, said in _faults(run)]


def _faults(run: Run) -> Iterator[tuple[Trail, str]]:
    teachers = {} if run.distill is None else run.distill.teachers
    named = [(("experts", name), entry) for name, entry in run.experts.items()]
    for where, entry in [*named, *((("distill", "teachers", name), entry) for name, entry in teachers.items())]:
        try:
            expert_class(entry.kind, allow_import=True)
        except AstreaError as error:
            yield (*where, "kind"), f"{error.message} -> {error.mend}"
    if run.pretrain not in ("shipped", "scratch") and not is_file(f"{run.pretrain}/card.json"):
        yield ("pretrain",), f"{run.pretrain}/card.json {missing(f'{run.pretrain}/card.json')}"
    for key in ("train", "validation"):
        given = getattr(run.data, key)
        entries = () if given is None or isinstance(given, float) else (given,) if isinstance(given, str) else given
        for number, entry in enumerate(entries):
            trail: Trail = ("data", key) if isinstance(given, str) else ("data", key, number)
            yield from ((trail, said) for said in _data_faults(entry))
    if run.data.images is not None and not exists(run.data.images):
        yield ("data", "images"), f"{run.data.images} does not exist"


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
