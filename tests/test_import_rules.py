"""The rules by which the package's rooms depend on each other, held by its source: see docs/concepts.md."""

from __future__ import annotations

import ast

from import_graph import Import, find_cycle, imports, modules, room_of, tree_of

MAY_REACH_WORLD = {"world", "cli", "lab", "estimate"}
OPTIONAL = {"huggingface_hub", "matplotlib", "pycocotools", "resource"}
"""Extras, and what one operating system lacks."""

HEAVY = {"torch", "tokenizers", "urllib", "importlib"}
"""Imported where they are needed by modules that the command line imports at once, or that start a process of their
own. Beyond `astrea --help`, a library's name is no reason."""

LATE = {
    "astrea.common.devices",
    "astrea.common.installation",
    "astrea.model.folders.tokenizer_trial",
    "astrea.training.fsdp",  # some builds of torch have no distributed part
}
"""The modules that may: everything else imports at the top."""


def inner() -> list[Import]:
    """Imports of one module of the package by another."""
    return [found for found in imports() if found.target.split(".")[0] == "astrea" and found.target != found.module]


def shown(found: list[Import]) -> list[str]:
    return sorted({f"{each.module}:{each.line} imports {each.target}" for each in found})


def test_only_the_command_line_the_lab_and_estimates_reach_the_drawn_world() -> None:
    wrong = [i for i in inner() if room_of(i.target) == "world" and room_of(i.module) not in MAY_REACH_WORLD]
    assert shown(wrong) == []


def test_nothing_reaches_the_lab() -> None:
    wrong = [i for i in inner() if room_of(i.target) == "lab" and room_of(i.module) != "lab"]
    assert shown(wrong) == []


def test_only_the_command_line_reaches_the_server_and_the_server_neither_training_nor_the_drawn_world() -> None:
    wrong = [i for i in inner() if room_of(i.target) == "serving" and room_of(i.module) not in ("serving", "cli")]
    wrong += [
        i
        for i in inner()
        if room_of(i.module) == "serving" and room_of(i.target) in ("training", "world", "cli", "lab")
    ]
    assert shown(wrong) == []


def test_alignment_and_fusion_know_no_training() -> None:
    wrong = [i for i in inner() if room_of(i.module) in ("alignment", "fusion") and room_of(i.target) == "training"]
    assert shown(wrong) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    assert find_cycle({(i.module, i.target) for i in inner()}) == []


def test_no_room_imports_itself_by_a_detour() -> None:
    arrows = {(room_of(i.module), room_of(i.target)) for i in inner()}
    between = {(start, end) for start, end in arrows if start and end and start != end}
    assert find_cycle(between) == []


def test_imports_stand_at_the_top() -> None:
    """But for optional extras, and what is too heavy for a light command; what is loaded lazily is named by strings."""
    wrong = [
        i
        for i in imports()
        if i.inside is not None
        and i.module != "astrea.lmms"
        and i.target.split(".")[0] not in (OPTIONAL | HEAVY if i.module in LATE else OPTIONAL)
    ]
    assert shown(wrong) == []


def test_few_files_lie_in_no_room() -> None:
    roots = [name for name in modules() if name != "astrea" and room_of(name) == ""]
    assert len(roots) + 1 <= 3, roots


def test_files_and_functions_fit_on_few_screens() -> None:
    wrong = []
    for name, path in modules().items():
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > 400:
            wrong.append(f"{name}: {lines} lines")
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (length := node.end_lineno - node.lineno + 1) > 80:
                    wrong.append(f"{name}.{node.name}: {length} lines")
    assert wrong == []


def test_the_graph_is_read_from_the_source() -> None:
    """What the rules above go by: imports at the top, in functions, and none for annotations alone."""
    targets = {(i.module, i.target, i.inside) for i in imports()}
    assert ("astrea.common.paths", "astrea.common.errors", None) in targets
    assert ("astrea.data.worlds", "astrea.experts.bank", None) in targets
    assert not any(
        module == "astrea.data.worlds" and target.startswith("astrea.model") for module, target, _ in targets
    )
    assert find_cycle({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")})
    assert find_cycle({("a", "b"), ("b", "c")}) == []
