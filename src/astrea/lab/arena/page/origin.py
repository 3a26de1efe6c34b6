"""The section on how the arena was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.lab.arena.page.blocks import Block, Cell, Row, Table, Text
from astrea.lab.arena.page.reading import part
from astrea.report.formatting import words

KINDS = {"strategies": "Strategies", "ablations": "Ablations", "retraining": "Without one expert", "pairs": "Pairs"}


def made(arena: Mapping[str, Any]) -> list[Block]:
    """Command, commit, machine, seeds, and what each variant is."""
    facts = {name: arena.get(name) for name in ("recipe", "pretrain", "measured_on", "sealed", "commit", "machines")}
    facts |= {f"machine: {name}": value for name, value in part(arena, "machine").items()}
    rows = part(arena, "strategies")
    facts["seeds"] = ", ".join(dict.fromkeys(seed for name in rows for seed in part(rows, name, "values")))
    known = [_fact(name, value) for name, value in facts.items() if value not in (None, "")]
    notes = []
    for kind, title in KINDS.items():
        named = {name: part(arena, kind, name).get("note") for name in part(arena, kind)}
        lines = [_fact(name, note) for name, note in named.items() if note]
        notes += [Row(title, []), *lines] if lines else []
    blocks: list[Block] = []
    if arena.get("command"):
        blocks.append(Text(str(arena["command"]), "command"))
    if known:
        blocks.append(Table("Where it was made", ["Fact", "Value"], known, "fit"))
    if notes:
        blocks.append(Table("What each variant is", ["Name", "What it is"], notes, "", "Variants"))
    return blocks


def _fact(name: str, value: object) -> Row:
    return Row(words(name), [Cell(str(value), classes="more")])
