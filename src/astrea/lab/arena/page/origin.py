"""The section on how the arena was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.lab.arena.page.reading import part
from astrea.report.markup import cell, escape, row, table, words


def made(arena: Mapping[str, Any]) -> str:
    """Command, commit, machine, seeds, contestants."""
    facts = {name: arena.get(name) for name in ("recipe", "commit", "machines")}
    facts |= {f"machine: {name}": value for name, value in part(arena, "machine").items()}
    rows = part(arena, "strategies")
    facts["seeds"] = ", ".join(dict.fromkeys(seed for name in rows for seed in part(rows, name, "values")))
    lines = [row(words(n), [cell(escape(v), classes="more")]) for n, v in facts.items() if v not in (None, "")]
    command = arena.get("command")
    parts = [f'<pre class="command">{escape(command)}</pre>'] if command else []
    if lines:
        parts.append(table("Where it was made", ["Fact", "Value"], ["".join(lines)], classes="fit"))
    kinds = {"strategies": "Strategies", "ablations": "Ablations", "retraining": "Without one expert", "pairs": "Pairs"}
    bodies = []
    for kind, title in kinds.items():
        notes = [
            row(words(name), [cell(escape(note), classes="more")])
            for name in part(arena, kind)
            if (note := part(arena, kind, name).get("note"))
        ]
        if notes:
            bodies.append(f'<tr class="family"><th scope="rowgroup" colspan="2">{title}</th></tr>{"".join(notes)}')
    if bodies:
        parts.append("<h3>Contestants</h3>" + table("What each contestant is", ["Name", "What it is"], bodies))
    return "".join(parts)
