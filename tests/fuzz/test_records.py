"""A short run of the data files that ``benchmarks/fuzz.py --records 2000`` tries."""

from __future__ import annotations

from pathlib import Path

from fuzz.harness import run_case
from fuzz.records import FAMILIES, cases

COUNT = 40


def test_no_data_file_ends_in_a_traceback_a_hang_or_a_read_outside(tmp_path: Path) -> None:
    outcomes = [run_case(case) for case in cases(COUNT, 1, tmp_path)]
    assert [outcome for outcome in outcomes if outcome.offences] == []
    assert len({outcome.name.split()[0] for outcome in outcomes}) >= len(FAMILIES) - 1
    assert any(not outcome.error for outcome in outcomes)
    assert any(outcome.error.startswith("AstreaError") for outcome in outcomes)
