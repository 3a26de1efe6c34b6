from __future__ import annotations

import json

import pytest

from astrea.lab.arena.collect import collect, read_runs
from astrea.world.evaluation.tasks import TASKS


def test_means_deviations_and_differences_by_hand(make_record):
    made = collect(
        [
            make_record(seed=0, items=0.6),
            make_record(seed=1, items=0.8),
            make_record("average", seed=0, items=0.4, wall_s=50.0),
            make_record("average", seed=1, items=0.5, wall_s=70.0),
            make_record("switch", seed=1, items=0.3),
        ]
    )
    assert list(made["strategies"]) == ["astrea", "average", "switch"]
    ours, average, switch = made["strategies"].values()
    average_of = {"mean": pytest.approx(70), "std": pytest.approx(200**0.5), "seeds": 2}
    assert {key: ours["average"][key] for key in average_of} == average_of
    assert ours["average"]["low"] < 70 < ours["average"]["high"]
    assert ours["average"]["over"] == "seeds and items"
    assert ours["tasks"]["area"]["mean"] == pytest.approx(70)
    assert ours["latency_ms"] == 2.5
    assert average["wall_s"] == 60
    assert average["difference"]["mean"] == pytest.approx(-25)
    assert average["difference"]["low"] <= -25 <= average["difference"]["high"] < 0
    assert switch["average"]["std"] is None
    assert switch["difference"]["mean"] == pytest.approx(30 - 80)  # over the one seed that both have
    assert made["best_other"] == {"name": "average", "mean": pytest.approx(45), "gap": pytest.approx(25)}
    assert made["wins"] == len(TASKS)
    assert made["conditions"]["astrea"] == {"clean": 50.5, "night": None}
    assert made["load"]["cv"] == pytest.approx(0.15)
    assert made["shares"] == {"caption": {"clean": {"detection": pytest.approx(0.375)}}}
    json.dumps(made, allow_nan=False)


def test_intervals_say_what_they_are_over_and_p_is_corrected_within_a_table(make_record):
    scenes = {task: list(range(10)) for task in TASKS}
    names = ("average", "switch", "mova")
    made = collect(
        [
            make_record(items=0.8, scenes=scenes),
            *(
                make_record(name, items=items, scenes=scenes)
                for name, items in zip(names, (0.6, 0.3, 0.2), strict=True)
            ),
            make_record("mixer", kind="ablation", items=0.6),  # made before runs said which scenes these are
        ]
    )
    rows = {name: made["strategies"][name]["difference"] for name in names}
    assert {row["over"] for row in rows.values()} == {"scenes"}
    assert all(row["p"] <= row["p_holm"] for row in rows.values())
    assert rows["average"]["p_holm"] == rows["average"]["p"] > rows["mova"]["p_holm"]  # the largest of three
    assert rows["mova"]["p_holm"] == pytest.approx(3 * rows["mova"]["p"])
    alone = made["ablations"]["mixer"]["difference"]
    assert (alone["over"], alone["p_holm"]) == ("items", alone["p"])  # a table of one


def test_the_use_of_an_expert_masked_and_retrained(make_record):
    probes = {
        "masking": {"detection": {"average": -20.0}, "captioning": {"average": 4.0}},
        "robustness": {"clean": 80.0},
        "calibration": {},
        "saving": {},
    }
    made = collect(
        [
            make_record(items=0.8, probes=probes),
            make_record(seed=1, items=0.5),
            make_record("without_detection", kind="retraining", items=0.6),
            make_record("without_detection", kind="retraining", seed=1, items=0.4),
            make_record("without_captioning", kind="retraining", seed=2, items=0.4),  # no run of Astrea to compare with
        ]
    )
    assert made["cur"] == {
        "masked": {"detection": pytest.approx(0.25), "captioning": pytest.approx(-0.05)},
        "retrained": {"detection": pytest.approx((0.25 + 0.2) / 2)},
        "gap": {"masked": pytest.approx(0.3), "retrained": 0.0},
    }


def test_a_tie_is_no_win(make_record):
    better = {task: [1.0, 1.0] for task in TASKS} | {"area": [1.0, 0.0], "caption": [0.25, 0.0]}
    worse = {task: [1.0, 0.0] for task in TASKS}
    made = collect([make_record(items=better), make_record("average", items=worse)])
    assert made["wins"] == len(TASKS) - 2


def test_variants_have_rooms_of_their_own(make_record):
    made = collect(
        [
            make_record(items=0.6),
            make_record("mixer", kind="ablation", items=0.5),
            make_record("without_detection", kind="retraining", items=0.4),
            make_record("pair_captioning_detection", kind="pair", items=0.3),
            make_record("average", kind="wall", items=0.5, wall_s=99.0),
        ]
    )
    assert made["ablations"]["mixer"]["mean"] == pytest.approx(50)
    assert made["ablations"]["mixer"]["difference"]["mean"] == pytest.approx(-10)
    assert made["retraining"]["detection"]["difference"]["mean"] == pytest.approx(-20)
    assert made["pairs"]["captioning_detection"]["difference"]["mean"] == pytest.approx(-30)
    assert made["equal_wall"]["average"]["wall_s"] == 99
    assert made["equal_wall"]["average"]["astrea_wall_s"] == 100
    assert list(made["strategies"]) == ["astrea"]
    assert made["best_other"] is made["wins"] is None


def test_probes_are_averaged_over_astreas_seeds(make_record):
    def probes(x: float) -> dict:
        return {
            "masking": {"detection": {"average": -x}},
            "contribution": {"area": {"night": {"detection": x}}},
            "calibration": {"rank_correlation": x / 10, "per_task": None},
            "pareto": [{"kept": 1.0, "average": 10 * x}],
            "robustness": {"noise": x, "mean_loss": {"swapped": 5 * x}},
            "saving": {"difference": -x, "tokens_share": 0.6},
        }

    made = collect(
        [
            make_record(seed=0, probes=probes(2.0)),
            make_record(seed=1, probes=probes(4.0)),
            make_record(seed=2),
            make_record("allocator", kind="ablation", probes=probes(8.0)),
        ]
    )
    assert made["masking"] == {"detection": {"average": -3.0}}
    assert made["contribution"] == {"area": {"night": {"detection": 3.0}}}
    assert made["calibration"] == {"rank_correlation": pytest.approx(0.3), "per_task": None}
    assert made["pareto"] == [{"kept": 1.0, "average": 30.0}]
    assert made["robustness"] == {
        "astrea": {"noise": 3.0, "mean_loss": {"swapped": 15.0}},
        "without_allocator": {"noise": 8.0, "mean_loss": {"swapped": 40.0}},
    }
    ours = made["adaptivity"]["astrea"]
    assert (ours["seeds"], ours["masked"], ours["fewer_tokens"], ours["swapped"]) == (3, 3.0, 3.0, 15.0)
    assert ours["nan"] is None
    assert ours["std"]["masked"] == pytest.approx(2**0.5)
    assert "nan" not in ours["std"]
    assert set(made["adaptivity"]["allocator"]["std"].values()) == {None}
    assert list(made["adaptivity"]) == ["astrea", "allocator"]
    assert made["trust"] is None


def test_curves_are_kept_seed_by_seed(make_record):
    made = collect([make_record(seed=0, curve=[[1.0, 50.0]]), make_record(seed=1, curve=[[1.5, 60.0]])])
    assert made["curves"] == {"astrea": {"0": [[1.0, 50.0]], "1": [[1.5, 60.0]]}}


def test_nothing_measured_is_nothing_claimed():
    made = collect([])
    assert made["strategies"] == made["ablations"] == made["curves"] == {}
    assert made["masking"] is made["best_other"] is made["machine"] is None


def test_machines_and_commits_are_told_apart(make_record):
    made = collect(
        [make_record(), make_record(seed=1, commit="def", machine={"cores": 9}), make_record(seed=2, commit=None)]
    )
    assert made["commit"] == "abc, def"
    assert made["machines"] == 2


def test_what_is_no_cell_is_passed_over_and_told(make_record, tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(json.dumps(make_record()))
    (tmp_path / "cells" / "b.json").write_text('{"schema": 1, "dig')
    (tmp_path / "cells" / "c.json").write_text(json.dumps(make_record(schema=0)))
    (tmp_path / "cells" / "d.json").write_text("[]")
    warned: list[str] = []
    assert len(read_runs(tmp_path, warn=warned.append)) == 1
    assert [line.split()[0] for line in warned] == ["b.json", "c.json", "d.json"]
