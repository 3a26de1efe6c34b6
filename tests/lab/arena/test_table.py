from __future__ import annotations

import io

from rich.console import Console

from astrea.lab.arena.collect import collect
from astrea.lab.arena.table import arena_table, difference_text


def shown(records) -> str:
    file = io.StringIO()
    Console(width=80, file=file).print(arena_table(collect(records)))
    return file.getvalue()


def test_strategies_from_best_to_worst_then_variants(make_record):
    text = shown(
        [
            make_record(seed=0, items=0.6),
            make_record(seed=1, items=0.8),
            make_record("channel_concat_aligned", items=0.5, wall_s=250.0),
            make_record("mixer", kind="ablation", items=0.4),
            make_record("without_detection", kind="retraining", items=0.3),
            make_record("pair_captioning_detection", kind="pair", items=0.2),
            make_record("average", kind="wall", items=0.1),
        ]
    )
    lines = [line for line in text.splitlines() if "(" in line][1:]
    names = ["astrea", "channel_concat_aligned", "without mixer", "detection left out", "captioning_detection only"]
    assert [line[1:28].strip() for line in lines] == [*names, "average at equal time"]
    assert "70.0 ± 14.1 (2)" in lines[0]
    assert "to" not in lines[0]  # astrea is not compared with itself
    assert "-10.0 (" in lines[1]
    assert "250" in lines[1]


def test_an_arena_without_astrea(make_record):
    assert "50.0 (1)" in shown([make_record("average")])


def test_a_difference_that_chance_hardly_makes_has_a_star():
    apart = {"mean": -3.0, "low": -5.0, "high": -1.0, "p": 0.001}
    assert difference_text(apart | {"p_holm": 0.04}) == "-3.0 (-5.0 to -1.0)*"
    assert difference_text(apart | {"p_holm": 0.06}) == "-3.0 (-5.0 to -1.0)"
    assert difference_text({"mean": -3.0, "low": None, "high": None, "p": None}) == "-3.0"
