from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.report.page import write_report
from astrea.report.results import TASKS
from finished_runs import EXPERTS, full_results, sample, write_samples
from html_pages import Page, saved

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&\x00\ud800"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "tiny-run"
    (run / "samples").mkdir(parents=True)
    Image.new("RGB", (64, 64), (9, 9, 9)).save(run / "samples/00.png")
    Image.new("RGB", (400, 200), (9, 90, 9)).save(run / "samples/00-readings.png")
    (run / "results.json").write_text(json.dumps(full_results()))
    rows = [
        {"step": step, "stage": stage, "loss": 5 - step / 100, "word": 1.0, "lr": 1e-3}
        for stage, start in (("align/captioning", 0), ("fuse", 100), ("tune", 200))
        for step in range(start, start + 100)
    ]
    (run / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_samples(run, [sample(), sample(right=True, answer="blue", panel=None)])
    (run / "recipe.yaml").write_text("name: tiny\nseed: 0 # <b>\n")
    return run


def page_of(run: Path) -> tuple[str, Page]:
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text("utf-8")
    return text, Page(text)


def broken(run: Path) -> AstreaError:
    with pytest.raises(AstreaError) as caught:
        write_report(run)
    assert caught.value.hint
    assert not (run / "report.html").exists()
    return caught.value


def test_a_full_run_shows_everything(run: Path):
    _, page = page_of(run)
    shown = ["77.1", "30.2", "+46.9", "1.28 M", "4.21 M", "3 min 06 s", "81.2", "41.7", "80.4", "61.9", "−9.3", "1.60"]
    for piece in [*shown, *(task.replace("_", " ") for task in TASKS), *EXPERTS, "what colour is the cat?", "✗ wrong"]:
        assert piece in page.text
    for piece in (
        "align/captioning",
        "fuse",
        "name: tiny",
        "seed: 0 # <b>",
        "astrea report tiny-run",
        "40%",
        "✓ right",
    ):
        assert piece in page.text
    assert "not measured" not in page.text
    assert "absent" not in page.text
    assert len(page.all("svg")) == 3
    assert len(page.all("img")) == 2


def test_what_was_forgotten_is_shown_where_it_was_measured(run: Path):
    assert not any("forgetting" in link.get("href", "") for link in page_of(run)[1].all("a"))
    fact = {"question": "is <b>?", "right": "b", "before": "It is b.", "after": "orange", "loss_before": 1.5}
    counts = {"questions": 10, "right_before": 9, "right_after": 4, "same": 3}
    results = full_results() | {"forgetting": {**counts, "loss_before": 1.25, "loss_after": 2.5, "answers": [fact]}}
    (run / "results.json").write_text(json.dumps(results))
    _, page = page_of(run)
    assert "loss 1.250 before training, 2.500 after (+100%); 9 right before, 4 after; 3 answers as before" in page.text
    assert all(piece in page.text for piece in ("is <b>?", "It is b.", "orange", "1.50"))
    assert any(link["href"] == "#forgetting" for link in page.all("a"))


def test_the_page_stands_alone(run: Path):
    text, page = page_of(run)
    bare = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", bare)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    addresses = [v for _, attributes in page.tags for n, v in attributes.items() if n in ("src", "href")]
    assert all(address.startswith(("data:image/png;base64,", "data:text/csv;", "#")) for address in addresses)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "script" not in policy
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert str(run.parent) not in text  # it is made to be sent to others


def test_it_is_made_to_be_read_by_everybody(run: Path):
    text, page = page_of(run)
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.all("svg"))
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {link["href"][1:] for link in page.all("a") if "download" not in link}
    assert links <= anchors


def test_the_same_run_gives_the_same_bytes(run: Path):
    assert write_report(run).read_bytes() == write_report(run).read_bytes()
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_only_results_are_needed(run: Path):
    for name in ("train.jsonl", "samples.json", "recipe.yaml"):
        (run / name).unlink()
    _, page = page_of(run)
    for name in ("train.jsonl is absent", "samples.json is absent", "recipe.yaml is absent"):
        assert name in page.text


def test_nothing_measured(run: Path):
    (run / "results.json").write_text('{"schema": 1}')
    _, page = page_of(run)
    assert page.text.count("not measured") >= 5
    assert "counting" in page.text


@pytest.mark.parametrize("field", sorted(set(full_results()) - {"schema"}))
@pytest.mark.parametrize("gone", ["left out", "null"])
def test_any_field_may_be_missing(run: Path, field: str, gone: str):
    (run / "train.jsonl").unlink()  # charts take time, and have nothing to do with results.json
    results = full_results()
    if gone == "null":
        results[field] = None
    else:
        del results[field]
    (run / "results.json").write_text(json.dumps(results))
    page_of(run)


def test_holes_inside_fields(run: Path):
    results = full_results()
    results["tasks"] = {"counting": {}, "area": {"score": None, "blind": 3}, "extra_task": {"score": math.nan, "n": 0}}
    results["load"] = {"mean": {"detection": None}}
    results["shares"] = {"counting": {}, "area": None}
    results["masking"] = {"detection": None}
    results["masking_by_task"] = {"detection": {"counting": None, "mine": 4}}
    results["experts"] = {"detection": {}}
    results["experts_by_condition"] = {"segmentation": {"night": {"miou": 3}}}
    results["seconds"] = {"align": None}
    results["params"] = {"total": 10**400}
    (run / "results.json").write_text(json.dumps(results))
    _, page = page_of(run)
    assert "extra task" in page.text
    assert "miou" in page.text


def test_hostile_text_is_shown_and_not_obeyed(run: Path):
    results = full_results()
    for name in ("strategy", "recipe", "seed"):
        results[name] = HOSTILE
    for name in ("tasks", "experts", "shares", "shares_by_condition", "masking", "conditions", "seconds", "params"):
        results[name][HOSTILE] = next(iter(results[name].values()))
    results["tasks"][HOSTILE] = {"metric": HOSTILE, "score": 1, "secondary": {HOSTILE: 1}}
    results["load"]["mean"][HOSTILE] = 0.1
    results["experts_by_condition"][HOSTILE] = {HOSTILE: {HOSTILE: 1}}
    results["masking_by_task"][HOSTILE] = {HOSTILE: 1}
    (run / "results.json").write_text(json.dumps(results))
    hostile = dict.fromkeys(("task", "question", "answer", "truth", "condition"), HOSTILE)
    write_samples(run, [sample(**hostile, shares={HOSTILE: 0.5})])
    (run / "train.jsonl").write_text(json.dumps({"step": 1, "stage": HOSTILE, "loss": 1.0}) + "\n")
    (run / "recipe.yaml").write_bytes(HOSTILE.encode("utf-8", "surrogatepass") + b"\xff</pre>")
    text, page = page_of(run)
    assert "script" not in {tag for tag, _ in page.tags}
    assert len(page.all("img")) == 1
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "\0" not in text


def test_a_run_folder_with_a_hostile_name(run: Path):
    renamed = run.rename(run.with_name("<b onclick='x'>&"))
    _, page = page_of(renamed)
    assert "<b onclick='x'>&" in page.text


# --- mistakes in the files ------------------------------------------------------------------------------------------


def test_no_such_run(tmp_path: Path):
    with pytest.raises(AstreaError, match="is not a folder"):
        write_report(tmp_path / "nothing")


def test_results_missing(run: Path):
    (run / "results.json").unlink()
    error = broken(run)
    assert "results.json does not exist" in error.message
    assert "astrea evaluate" in error.hint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not valid JSON"),
        ('{"schema": 1, "tasks": ', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "holds a list"),
        ('"text"', "holds text"),
        ("null", "holds null"),
        ('{"schema": 2}', "schema '2'"),
        ('{"average": "high"}', "average is 'high'"),
        ('{"average": true}', "average is 'True'"),
        ('{"tasks": []}', r"tasks is '\[\]'"),
        ('{"tasks": {"area": {"score": "9"}}}', "tasks.area.score is '9'"),
        ('{"shares": {"area": {"detection": {}}}}', "shares.area.detection"),
        ('{"load": 3}', "load is '3'"),
    ],
)
def test_damaged_results(run: Path, text: str, told: str):
    (run / "results.json").write_text(text)
    error = broken(run)
    assert "results.json" in error.message
    assert re.search(told, error.message)


@pytest.mark.parametrize("name", ["results.json", "train.jsonl", "samples.json", "recipe.yaml"])
def test_a_folder_in_the_place_of_a_file(run: Path, name: str):
    (run / name).unlink()
    (run / name).mkdir()
    assert f"{name} is a folder" in broken(run).message


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"loss": 1}', '{"step": "1", "loss": 1}', '{"step": true}', '{"step": 1%s}' % ("0" * 400), "\ufffd"],
)
def test_a_damaged_line_of_the_log_is_named(run: Path, line: str):
    (run / "train.jsonl").write_text('{"step": 1, "stage": "fuse", "loss": 1}\n\n' + line + "\n")
    error = broken(run)
    assert "train.jsonl, line 3" in error.message
    assert "Remove that line" in error.hint


def test_a_torn_last_line_is_no_damage(run: Path):
    with (run / "train.jsonl").open("a") as file:
        file.write('{"step": 300, "stage": "tu')
    assert "100 steps" in page_of(run)[1].text


def test_odd_rows_of_the_log(run: Path):
    rows = [
        {"step": 1},
        {"step": 2, "stage": 7, "loss": 1},
        {"step": 3, "stage": "fuse", "loss": None},
        {"step": 4, "stage": "fuse", "loss": "x", "lm": True},
        {"step": 5, "stage": "only-lm", "lm": 2.0},
        {"step": 6, "stage": "flat", "loss": 0.0},
        {"step": 7, "stage": "flat", "loss": 0.0},
        {"step": 8, "stage": "below", "loss": -1.5},
        {"step": 9, "stage": "huge", "loss": 1e300},
        {"step": 10, "stage": "huge", "loss": 10**400},
        {"step": 11, "stage": "large", "loss": -9e29},
        {"step": 12, "stage": "large", "loss": 9e29},
    ]
    (run / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text, page = page_of(run)
    assert [s["aria-label"].split(":")[0] for s in page.all("svg")] == [
        f"Loss of stage {stage}" for stage in ("only-lm", "flat", "below", "large")
    ]
    assert not re.search(r"\b(nan|inf)\b", " ".join(drawing for drawing in re.findall(r"<svg.*?</svg>", text)))


def test_an_empty_log(run: Path):
    (run / "train.jsonl").write_text("")
    assert "train.jsonl holds no losses" in page_of(run)[1].text


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "samples/../../secret.png",
        "/etc/passwd",
        "C:\\secret.png",
        "\\\\host\\share.png",
        "samples\\..\\..\\secret.png",
        "a\0.png",
        "link.png",
        "linked/secret.png",
        7,
    ],
)
@pytest.mark.parametrize("key", ["image", "panel"])
def test_pictures_outside_the_run_are_refused(run: Path, key: str, path: object):
    Image.new("RGB", (8, 8)).save(run.parent / "secret.png")
    (run / "link.png").symlink_to(run.parent / "secret.png")
    (run / "linked").symlink_to(run.parent)
    write_samples(run, [sample(), sample(**{key: path})])
    assert f'samples.json, sample 1, "{key}"' in broken(run).message


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({}, "holds no list"),
        ([3], "sample 0 is not an object"),
        ([{}], "sample 0 names no picture"),
        ([sample(panel="samples/none.png")], "sample 0: image .*none.png does not exist"),
        ([sample(panel="results.json")], "results.json is not a"),
        ([sample(shares={"detection": "half"})], "share of \"detection\" is 'half'"),
        ([sample(shares={"detection": 1.5})], "share of \"detection\" is '1.5'"),
        ([sample(shares=[1])], '"shares" is not an object'),
    ],
)
def test_damaged_samples(run: Path, rows: Any, told: str):
    (run / "samples.json").write_text(json.dumps(rows))
    error = broken(run)
    assert "samples.json" in error.message
    assert re.search(told, error.message)


def test_no_samples_and_too_many(run: Path):
    write_samples(run, [])
    assert "samples.json is empty" in page_of(run)[1].text
    write_samples(run, [sample()] * 50)
    _, page = page_of(run)
    assert len(page.all("img")) == 48
    assert "2 more are in" in page.text


def test_a_page_that_cannot_be_written(run: Path):
    (run / "report.html").mkdir()
    with pytest.raises(AstreaError, match=r"report\.html cannot be written"):
        write_report(run)


def test_what_no_average_counts_stands_apart(run: Path):
    results = full_results() | {
        "templates": {"spatial.name": {"score": 41.25, "n": 80, "blind": 2.5}},
        "naming": {"score": 41.25, "n": 80, "blind": 2.5},
        "new_things": {"existence": {"score": 83.125, "n": 160, "blind": 50.0}},
    }
    (run / "results.json").write_text(json.dumps(results))
    page = write_report(run).read_text(encoding="utf-8")
    for text in ("Things never shown in training", "existence of new things", "83.1", "Counted above", "41.2"):
        assert text in page
    assert saved(Page(page), "questions.csv")[1:] == [["spatial.name", "41.25", "2.5", "80"]]
    (run / "results.json").write_text(json.dumps(full_results()))
    page = write_report(run).read_text(encoding="utf-8")
    assert "Things never shown" not in page
    assert "questions.csv" not in page
