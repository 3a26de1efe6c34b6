"""The arena as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from astrea.lab.arena.lr_sweep import FACTORS
from astrea.lab.arena.variants import ablation_title

LR_SWEEP = "arena: learning rates tried, average on validation"
SIGNIFICANT = 0.05
VARIANTS = {"ablations": ablation_title, "retraining": "{} left out".format, "pairs": "{} only".format}


def arena_table(arena: Mapping[str, Any]) -> Table:
    """Strategies from best to worst, then Astrea's variants: mean and deviation over seeds, difference to Astrea."""
    title = "arena: average of twelve tasks, 95 % intervals; *: p < 0.05 by Holm"
    table = Table(title=title, title_style="bold", header_style="dim", box=SIMPLE_HEAD, padding=0)
    table.add_column("variant", overflow="fold")
    for name in ("  average (seeds)", "  minus astrea", "  seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in arena["strategies"].items():
        style = "bold" if name == "astrea" else ""
        table.add_row(*_cells(name, row, row["average"], row["average"]["seeds"]), style=style)
    for kind, called in VARIANTS.items():
        if arena[kind]:
            table.add_section()
        for name, row in arena[kind].items():
            table.add_row(*_cells(called(name), row, row, row["seeds"]))
    if arena["equal_wall"]:
        table.add_section()
    for name, row in arena["equal_wall"].items():
        table.add_row(*_cells(f"{name} at equal time", row, row["average"], row["average"]["seeds"]))
    return table


def lr_sweep_table(arena: Mapping[str, Any]) -> Table:
    """The sweep of every strategy: its average on validation at each factor, and which factor was best and is used."""
    table = Table(title=LR_SWEEP, title_style="bold", header_style="dim", box=SIMPLE_HEAD, padding=0)
    table.add_column("strategy", overflow="fold")
    for name in (*(f"  x{factor}" for factor in FACTORS), "  best", "  used"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in arena["trials"].items():
        rates = ["" if rate is None else f"{rate:.1f}" for rate in row["rates"].values()]
        ends = [f"x{row[key]}" if row[key] else "" for key in ("best", "used")]
        table.add_row(*map(Text, (name, *rates, *ends)))
    return table


def _cells(name: str, row: Mapping[str, Any], average: Mapping[str, Any], seeds: int) -> list[Text]:
    apart = (row["difference"] if name != "astrea" else None) or {}
    return [
        Text(name),
        Text(f"{average['mean']:.1f}" + ("" if average["std"] is None else f" ± {average['std']:.1f}") + f" ({seeds})"),
        Text(difference_text(apart)),
        Text(f"{row['wall_s']:.0f}" if "wall_s" in row else ""),
    ]


def difference_text(apart: Mapping[str, Any]) -> str:
    """A difference with its interval, where there is one, and a star."""
    if not apart:
        return ""
    ends = "" if apart["low"] is None else f" ({apart['low']:+.1f} to {apart['high']:+.1f})"
    return f"{apart['mean']:+.1f}{ends}" + ("*" if apart.get("p_holm", 1.0) < SIGNIFICANT else "")
