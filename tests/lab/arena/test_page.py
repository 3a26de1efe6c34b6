from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astrea.lab.arena.collect import collect
from astrea.lab.arena.page import comparisons, learning, probes
from astrea.lab.arena.page.experts import ranks, split_pair
from astrea.lab.arena.page.headline import verdict
from astrea.lab.arena.page.page import render, write_page
from astrea.lab.arena.page.sections import SECTIONS
from astrea.lab.probes.robustness import CORRUPTIONS
from astrea.world.evaluation.tasks import CAPTION_TASKS, TASKS, VQA_TASKS
from html_pages import Page, saved

EXPERTS = ("captioning", "classification", "segmentation", "detection")
CONDITIONS = ("clean", "night")
PROBED = (*VQA_TASKS, *CAPTION_TASKS)
REPORTS = {
    "conflict": {"conflict": 61.3, "agreement": 88.0, "items": 140},
    "faults": {
        "clean": 80.0,
        "late": {
            "a": {"loss": 4.0, "conflict_loss": 7.0, "believed": 0.5},
            "b": {"loss": 6.0, "conflict_loss": None, "believed": 0.25},
        },
        "mirrored": {"b": {"loss": 1.5, "conflict_loss": None, "believed": None}},
    },
    "budgets": {
        "all": {"average": 80.0, "flops_share": 1.0, "seconds_share": 1.0},
        "16/2": {"first_k": {"average": 41.5, "flops_share": 0.13, "seconds_share": 0.19, "experts": ["a", "b"]}},
        "worth": {"a": 0.1},
    },
}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&"


class ArenaPage(Page):
    """Also by section, and the cells of every row."""

    def __init__(self, text: str) -> None:
        self.sections: dict[str, str] = {"": ""}
        self.at = ""
        self.rows: list[list[str]] = []
        self.places: list[str] = []
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag == "section":
            self.at = dict(attrs)["id"] or ""
            self.sections[self.at] = ""
        if tag == "tr":
            self.rows.append([])
            self.places.append(self.at)
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        super().handle_endtag(tag)
        if tag == "section":
            self.at = ""

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if self.open and self.open[-1] != "style":
            self.sections[self.at] += data
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data

    def row(self, section: str, head: str, width: int) -> list[str]:
        """The cells of the one row of a section with this head and this many cells."""
        (found,) = [
            each
            for place, each in zip(self.places, self.rows, strict=True)
            if place == section and each[0] == head and len(each) == width
        ]
        return found


def full_probes(low: float) -> dict[str, Any]:
    """What the probes of one cell say; see `astrea.lab.probes.probes.probe`."""
    losses = dict(zip(EXPERTS, (-11.2, -4.4, -14.3, -5.1), strict=True))
    cells = {t: {c: {e: 0.1 * i for i, e in enumerate(EXPERTS)} for c in CONDITIONS} for t in PROBED}
    return {
        "masking": {e: {"average": loss, "tasks": dict.fromkeys(PROBED, loss)} for e, loss in losses.items()},
        "contribution": cells,
        "calibration": {"rank_correlation": 0.73, "relative": 0.77, "per_task": 0.81, "cells": 80, "min_items": 5},
        "saving": {"threshold": 0.3, "tokens_share": 0.59, "average": 69.0, "difference": -0.6},
        "pareto": [
            {"threshold": t, "average": 70 - 90 * t, "tokens_read": 64 * (1 - t), "tokens_share": 1 - t}
            for t in (0.0, 0.1, 0.3)
        ],
        "robustness": {
            **{kind: {e: {"average": low + i} for e in EXPERTS} for i, kind in enumerate(CORRUPTIONS)},
            "clean": 71.3,
            "mean_loss": {"swapped": 71.3 - low},
        },
        "trust": {e: {"clean": 0.97, "swapped": 0.13} for e in EXPERTS},
    }


@pytest.fixture
def arena(make_record: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """An arena with everything, made by `collect` so that it has the form of a real one."""
    records = []
    shares = {t: {c: dict(zip(EXPERTS, (0.4, 0.1, 0.2, 0.3), strict=True)) for c in CONDITIONS} for t in TASKS}
    load = {
        "mean": shares["caption"]["clean"],
        "cv": 0.21,
        "max_over_mean": 1.6,
        "entropy": 1.28,
        "entropy_share": 0.92,
    }
    for seed, ours in enumerate((0.7, 0.8)):
        more = {"seed": seed, "conditions": {"clean": 80.4, "night": 61.9}, "machine": {"processor": "abacus"}}
        curve = [[10.0 * i, 40.0 + i + seed] for i in range(5)]
        own = {"shares": shares, "load": load, "params_trainable": 1_284_220, "visual_tokens": 64}
        records += [
            make_record(items=ours, **more, **own, curve=curve, probes=full_probes(50.5), reports=REPORTS),
            make_record("average", items=0.5, **more, curve=curve, visual_tokens=16, flops_per_sample=84_200_000),
            make_record("switch", items=0.6 if seed else 0.5, **more | {"conditions": {"clean": 90.5, "night": 10.0}}),
            make_record("mixer", kind="ablation", items=0.6, **more),
            make_record("allocator", kind="ablation", items=0.4, **more, probes=full_probes(33.5)),
            make_record("average", kind="wall", items=0.6, **more, wall_s=99.0),
            *(
                make_record(f"average@{f}", kind="trial", items=i / 10, digest=f)
                for i, f in enumerate(("0.5", "1", "2"), 4)
            ),
            *(make_record(f"without_{e}", kind="retraining", items=i / 10, **more) for i, e in enumerate(EXPERTS, 3)),
            *(make_record(f"pair_{a}_detection", kind="pair", items=0.3, **more) for a in EXPERTS[:2]),
        ]
    made = {"recipe": "tiny", "command": "astrea arena tiny --seeds 2", **collect(records)}
    return json.loads(json.dumps(made))


def remembering(draw: Callable[..., str]) -> Callable[..., str]:
    drawn: dict[str, str] = {}

    def remembered(*arguments: object) -> str:
        asked = repr(arguments)
        if asked not in drawn:
            drawn[asked] = draw(*arguments)
        return drawn[asked]

    return remembered


@pytest.fixture
def charts_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chart of what was drawn before is not drawn again, for tests that make a page a hundred times."""
    for module, name in ((comparisons, "difference_chart"), (learning, "line_chart"), (probes, "line_chart")):
        monkeypatch.setattr(module, name, remembering(getattr(module, name)))


def test_a_full_arena_shows_everything(arena, tmp_path):
    write_page(arena, tmp_path / "arena.html")
    page = ArenaPage((tmp_path / "arena.html").read_text("utf-8"))
    assert "not measured" not in page.text
    assert "Missing" not in page.text
    assert [*page.sections] == ["", *(each.anchor for each in SECTIONS)]
    assert len(page.all("svg")) == 5  # differences twice, calibration, tokens, curves
    for name in (*TASKS, *arena["strategies"], *arena["ablations"], *EXPERTS, *CONDITIONS):
        assert name.replace("_", " ") in page.text
    assert "astrea arena tiny --seeds 2" in page.sections["made"]
    assert "abc" in page.sections["made"]
    assert "abacus" in page.sections["made"]
    assert "about mixer" in page.sections["made"]


def test_strategies_for_a_spreadsheet(arena):
    head, *rows = saved(ArenaPage(render(arena)), "strategies.csv")
    assert head[:4] == ["strategy", "average", "std", "seeds"]
    assert {row[0] for row in rows} == set(arena["strategies"])
    for row in rows:
        told = dict(zip(head, row, strict=True))
        assert float(told["average"]) == pytest.approx(arena["strategies"][row[0]]["average"]["mean"], rel=1e-5)
        assert all(told[task] for task in TASKS)


def test_the_headline_is_about_astrea_and_the_best_other(arena):
    arena["strategies"]["switch"]["difference"] = {"mean": -20.04, "low": -23.3, "high": -17.2}
    told = ArenaPage(render(arena)).sections[""]
    for piece in ("75.0 ± 7.1", "55.0 ± 7.1", "+20.0", "+17.2 to +23.3", "12 of 12", "switch", "Astrea is ahead"):
        assert piece in told
    assert "same at equal training time" in told


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 2.0, "Astrea is ahead"),
        (-2.0, -0.1, "is ahead of Astrea"),
        (-1.0, 1.0, "neither"),
        (None, 1.0, "not meas"),
    ],
)
def test_no_more_is_said_than_the_interval_allows(low, high, said):
    assert said in verdict({"mean": 0.5, "low": low, "high": high})


def test_strategies_stand_in_the_order_of_their_means_with_their_numbers(arena):
    arena["strategies"] = dict(reversed(arena["strategies"].items()))
    arena["strategies"]["average"]["difference"] = {"mean": -25.14, "low": -28.1, "high": -22.9}
    page = ArenaPage(render(arena))
    names = [row[0] for row in page.rows if len(row) == 11][1:]
    assert names == ["astrea", "switch", "average"]
    assert page.row("strategies", "astrea", 11) == [
        "astrea",
        "75.0 ± 7.1",
        "2",
        "",
        "",
        "",
        "1.28 M",
        "64",
        "1 k",
        "2.5",
        "1 min 40 s",
    ]
    row = page.row("strategies", "average", 11)
    assert row[3:5] == ["−25.1", "−28.1 to −22.9"]
    assert row[8] == "84.2 M"


def test_the_best_of_every_column_is_marked_and_no_other(arena):
    arena["strategies"]["switch"]["tasks"]["area"] = {"mean": 99.9, "std": 0.1}
    page = ArenaPage(render(arena))
    area = 1 + TASKS.index("area")
    stars = {name: page.row("tasks", name, 13)[area] for name in arena["strategies"]}
    assert stars["switch"] == "★ 99.9 ± 0.1"
    assert not any("★" in told for name, told in stars.items() if name != "switch")
    assert page.row("conditions", "switch", 3)[1:] == ["★ 90.5", "10.0"]


def test_masking_and_retraining_stand_side_by_side(arena):
    page = ArenaPage(render(arena))
    changes = {e: page.row("without", e, 9) for e in EXPERTS}
    assert [changes[e][1] for e in EXPERTS] == ["−11.2", "−4.4", "−14.3", "−5.1"]
    assert [changes[e][2] for e in EXPERTS] == ["2", "4", "1", "3"]
    assert [changes[e][7] for e in EXPERTS] == ["1", "2", "3", "4"]
    for way, column in (("masked", 3), ("retrained", 8)):
        assert [changes[e][column] for e in EXPERTS] == [f"{arena['cur'][way][e]:.3f}" for e in EXPERTS]
    assert f"{arena['cur']['gap']['masked']:.3f} masked" in page.sections["without"]
    assert "put 0 of 4 experts in the same place" in page.sections["without"]


def test_pairs_are_a_matrix_also_with_underscores_in_names(arena):
    assert split_pair("a_b_c", ["a", "b_c"]) == ("a", "b_c")
    assert split_pair("a_b_c", ["a_b", "c"]) == ("a_b", "c")
    assert split_pair("a_x", ["a", "b"]) is None
    arena["pairs"]["un_known"] = {"mean": 12.3, "std": None}
    page = ArenaPage(render(arena))
    assert page.row("without", "captioning", 4) == ["captioning", "", "–", "30.0"]
    assert page.row("without", "un known", 2) == ["un known", "12.3"]


def test_probes_are_told_as_they_are(arena):
    page = ArenaPage(render(arena))
    assert page.row("robustness", "clean", 5)[1::2] == ["71.3", "71.3"]
    assert page.row("robustness", "swapped", 5)[1::2] == ["50.5", "33.5"]
    assert page.row("robustness", "detection", 3) == ["detection", "97%", "13%"]
    told = page.row("adaptivity", "astrea", 13)[2:8]
    assert told == ["1.60 ± 0.00", "0.73 ± 0.00", "0.77 ± 0.00", "0.81 ± 0.00", "0.59 ± 0.00", "0.6 ± 0.0"]
    assert page.row("pareto", "0.30", 5) == ["0.30", "70%", "44.8", "–", "43.0"]
    assert "0.73" in page.sections["calibration"]
    assert "entropy 1.28 nats (0.92 of the most there can be)" in page.sections["shares"]
    # (10 tasks + 2 without retrieval) x 2 conditions x 4 experts have a share and a contribution
    picture = re.search(r'id="calibration".*?</section>', render(arena), re.S)
    assert picture
    assert picture[0].count("<use") == len(PROBED) * len(CONDITIONS) * len(EXPERTS)


def test_other_strategies_are_compared_over_the_probed_tasks(arena):
    """The curve leaves retrieval out, so their points must too."""
    before = re.search(r'id="pareto".*?</section>', render(arena), re.S)
    for task in ("retrieval_i2t", "retrieval_t2i"):
        arena["strategies"]["switch"]["tasks"][task]["mean"] = 0.0
    arena["strategies"]["switch"]["average"]["mean"] = 1.0
    after = re.search(r'id="pareto".*?</section>', render(arena), re.S)
    assert before
    assert after
    assert sorted(re.findall("<use .*?>", before[0])) == sorted(re.findall("<use .*?>", after[0]))


@pytest.mark.parametrize("made", [{}, collect([])])
def test_an_empty_arena_says_what_is_missing(made):
    page = ArenaPage(render(made))
    for each in SECTIONS:
        if not each.missing:
            assert each.anchor not in page.sections
        elif each.anchor != "made" or not made:
            assert each.missing in page.sections[each.anchor]
    assert "Missing: strategies, twelve tasks, ablations" in page.text
    assert page.all("svg") == []
    assert "not measured" in page.sections[""]


def test_any_key_may_be_missing_empty_or_of_another_kind(arena, charts_drawn_once):
    whole = render(arena)
    for name in arena:
        for instead in (None, [], "text", {"astrea": {"average": [], "tasks": 3, "0": [[]]}}, [None, [1]]):
            ArenaPage(render({**arena, name: instead}))
        left_out = render({key: value for key, value in arena.items() if key != name})
        # The schema is not shown, and the tasks are the twelve unless told otherwise.
        assert (left_out == whole) == (name in ("schema", "tasks"))


def test_one_seed_has_no_deviation(arena):
    arena["strategies"]["astrea"]["average"] = {"mean": 71.26, "std": None, "seeds": 1}
    assert ArenaPage(render(arena)).row("strategies", "astrea", 11)[1:3] == ["71.3", "1"]


def test_numbers_that_are_none_are_not_drawn(arena):
    arena["strategies"]["switch"]["average"]["mean"] = math.nan
    arena["ablations"]["mixer"]["difference"] = {"mean": math.inf, "low": 10**400, "high": True}
    arena["pareto"][0]["average"] = "high"
    arena["curves"]["astrea"]["0"] = [[1.0, None], [2.0, 50.0], 3]
    drawings = " ".join(re.findall("<svg.*?</svg>", render(arena), re.S))
    assert drawings
    assert not re.search(r"\b(nan|inf|None|True)\b", drawings)


def hostile(tree: Any) -> Any:
    """The same tree, with markup in every name and every text of it."""
    if isinstance(tree, dict):
        last = {HOSTILE: hostile(next(reversed(tree.values())))} if tree else {}
        return {name: hostile(each) for name, each in tree.items()} | last
    if isinstance(tree, list):
        return [hostile(each) for each in tree]
    return f"{tree}{HOSTILE}" if isinstance(tree, str) else tree


def test_hostile_text_is_shown_and_not_obeyed(arena):
    text = render(hostile(arena))
    page = ArenaPage(text)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("<script>alert(1)</script>") > 20
    for each in SECTIONS:
        if each.anchor not in ("calibration", "pareto", "curves"):  # a chart shows names as labels, cut and in its key
            assert "<script>" in page.sections[each.anchor], each.anchor


def test_the_page_stands_alone(arena):
    text = render(arena)
    page = ArenaPage(text)
    assert not re.search(r"https?:|//|src=|url\(|@import|javascript:", text)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "prefers-color-scheme: dark" in text
    assert text == render(arena)


def test_it_is_made_to_be_read_by_everybody(arena):
    page = ArenaPage(render(arena))
    assert page.all("html")[0]["lang"] == "en"
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.all("svg"))
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    assert {link["href"][1:] for link in page.all("a") if "download" not in link} <= set(anchors)


def test_equal_losses_share_a_rank():
    assert ranks({"a": -3.0, "b": -1.0, "c": -3.0, "d": None}) == {"a": 1, "c": 1, "b": 3}


def test_a_page_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "arena.html").mkdir()
    with pytest.raises(OSError, match="arena"):
        write_page({}, tmp_path / "arena.html")


def test_p_is_told_corrected(arena):
    arena["strategies"]["average"]["difference"] |= {"p": 0.002, "p_holm": 0.0041}
    assert ArenaPage(render(arena)).row("strategies", "average", 11)[5] == "0.004"


def test_what_a_setting_reports(arena):
    page = ArenaPage(render({**arena, "setting": "conflict and shift"}))
    assert "Setting: conflict and shift." in page.sections["setting"]
    assert page.row("setting", "strategy astrea", 4)[1:] == ["61.3", "88.0", "140"]
    assert page.row("setting", "strategy astrea, late", 4)[1:] == ["5.0", "7.0", "38%"]
    assert page.row("setting", "strategy astrea, mirrored", 4)[1:] == ["1.5", "–", "–"]
    assert page.row("setting", "16/2, first k", 4)[1:] == ["41.5", "0.13", "0.19"]
    assert page.row("setting", "all", 4)[1:] == ["80.0", "1.00", "1.00"]
