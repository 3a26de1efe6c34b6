"""The shipped model over the miniature folder: files in, figures, predictions and submissions out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.evaluation.benchmarks.answers import Viewer
from astrea.evaluation.benchmarks.command import evaluate_public, public_table
from astrea.evaluation.benchmarks.items import Pool
from astrea.evaluation.benchmarks.ranking import best, rank
from astrea.evaluation.benchmarks.suite import TASKS
from astrea.evaluation.generate import Predictor
from astrea.evaluation.metrics.retrieval import ranks_i2t, ranks_t2i
from astrea.model.loading import load_model
from command_line import Astrea
from listening import Said

NAMES = [task.name for task in TASKS]
SHIPPED = Path("shipped")


def evaluate(data: Path, out: Path | None, **options: Any) -> tuple[dict[str, Any], AstreaError | None, list[str]]:
    heard = Said()
    results, error = evaluate_public(options.pop("model", SHIPPED), data=data, out=out, report=heard, **options)
    return results, error, heard.lines


@pytest.fixture(scope="module")
def whole(whole_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All twelve tasks, run once."""
    out = tmp_path_factory.mktemp("run")
    results, error, lines = evaluate(whole_data, out)
    assert error is None
    assert [line.split(":")[0] for line in lines] == NAMES
    return out, results


@pytest.fixture(scope="module")
def viewer() -> Viewer:
    model, processor = load_model(SHIPPED)
    return Viewer(Predictor(model, processor.tokenizer, batch=4), processor)


def test_all_twelve_are_scored_and_saved(whole: tuple[Path, dict[str, Any]]) -> None:
    out, results = whole
    assert list(results["tasks"]) == NAMES
    assert json.loads((out / "results.json").read_text()) == results
    counts = {name: task["n"] for name, task in results["tasks"].items()}
    assert counts == dict(zip(NAMES, (3, 3, 3, 2, 2, 2, 9, 4, 4, 3, 4, 3), strict=True))
    assert all(0 <= task["score"] <= 1000 and not task["complete"] for task in results["tasks"].values())
    assert results["mode"] == "official"
    assert results["missing"] == results["failed"] == {}
    for name in NAMES:
        rows = (out / f"predictions/{name}.jsonl").read_text().splitlines()
        assert json.loads(rows[0])["task"] == name
    submissions = {path.stem for path in (out / "submissions").iterdir()}
    pope = {f"pope_{subset}" for subset in ("random", "popular", "adversarial")}
    assert submissions == ({*NAMES} - {"pope", "coco_retrieval", "flickr30k_retrieval"}) | pope


def test_the_table_shows_every_task(whole: tuple[Path, dict[str, Any]]) -> None:
    table = public_table(whole[1])
    assert table.row_count == 12


def test_scores_made_again_from_predictions_are_the_first(
    whole: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results = whole
    for pictures in ("coco/val2014", "gqa/images", "flickr30k/flickr30k-images"):
        shutil.rmtree(data / pictures)  # nor are the pictures needed
    monkeypatch.setattr("astrea.model.loading.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    again, error, _ = evaluate(data, tmp_path / "again", predictions=out, model=Path("no such model"))
    assert error is None
    for name in NAMES:
        one, other = dict(results["tasks"][name]), dict(again["tasks"][name])
        del one["seconds"], other["seconds"]
        assert one == other, name
        assert other["model"] == "shipped"
    for path in (out / "submissions").iterdir():
        assert (tmp_path / "again/submissions" / path.name).read_bytes() == path.read_bytes()
    normalised, error, _ = evaluate(data, tmp_path / "other", predictions=out, mode="normalised")
    assert error is None
    assert normalised["mode"] == "normalised"


def test_answers_do_not_depend_on_what_is_answered_with_them(
    whole: tuple[Path, dict[str, Any]], whole_data: Path, tmp_path: Path
) -> None:
    out, _ = whole
    evaluate(whole_data, tmp_path, tasks="vqav2,coco_caption", batch=1)
    for name in ("vqav2", "coco_caption"):
        file = f"predictions/{name}.jsonl"
        assert (tmp_path / file).read_text() == (out / file).read_text()


def test_a_limited_run_scores_again_with_its_limit(whole_data: Path, tmp_path: Path) -> None:
    first, error, _ = evaluate(whole_data, tmp_path / "a", tasks="gqa,coco_retrieval", limit=2)
    assert error is None
    assert [task["n"] for task in first["tasks"].values()] == [2, 2]
    kept = tmp_path / "a"
    again, error, _ = evaluate(whole_data, None, tasks="gqa,coco_retrieval", predictions=kept)
    assert error is None
    assert [task["score"] for task in again["tasks"].values()] == [task["score"] for task in first["tasks"].values()]
    assert (kept / "rescored/results.json").is_file()
    _, error, _ = evaluate(whole_data, None, tasks="gqa", predictions=kept, limit=1)
    assert error is not None
    assert "are of 2 items, not 1" in str(error)


def test_a_second_run_adds_to_the_results_of_the_first(whole_data: Path, tmp_path: Path) -> None:
    evaluate(whole_data, tmp_path, tasks="gqa")
    both, _, _ = evaluate(whole_data, tmp_path, tasks="textvqa")
    assert list(both["tasks"]) == ["gqa", "textvqa"]
    other, _, _ = evaluate(whole_data, tmp_path, tasks="textvqa", mode="normalised")
    assert list(other["tasks"]) == ["textvqa"]  # other settings do not mix


def test_a_server_split_gives_a_submission_and_no_score(whole_data: Path, tmp_path: Path) -> None:
    results, error, lines = evaluate(whole_data, tmp_path, tasks="vqav2_testdev")
    assert error is None
    assert results["tasks"]["vqav2_testdev"]["score"] is None
    assert "no public answers" in lines[0]
    assert json.loads((tmp_path / "submissions/vqav2_testdev.json").read_text())[0]["question_id"] == 10
    assert public_table(results).row_count == 1


# What is missing or broken


def test_missing_files_are_listed_and_the_rest_is_run(data: Path, tmp_path: Path) -> None:
    (data / "gqa/testdev_balanced_questions.json").unlink()
    (data / "flickr30k/dataset_flickr30k.json").unlink()
    shutil.rmtree(data / "coco/val2014")
    results, error, lines = evaluate(data, tmp_path)
    assert error is None  # they were not asked for by name
    assert list(results["tasks"]) == ["textvqa", "vizwiz", "scienceqa", "nocaps", "flickr30k_retrieval"]
    told = lines[-1]
    assert f"{data}/gqa/testdev_balanced_questions.json  [questions1.2.zip of GQA]  for gqa" in told
    line = next(line for line in told.splitlines() if line.startswith(f"{data}/coco/val2014"))
    assert line.endswith("for vqav2, okvqa, pope, coco_caption, coco_retrieval")
    assert set(results["missing"]) == {*NAMES} - set(results["tasks"])


def test_a_task_asked_for_by_name_must_be_there(data: Path, tmp_path: Path) -> None:
    (data / "vizwiz/val.json").unlink()
    results, error, _ = evaluate(data, tmp_path, tasks="textvqa,vizwiz")
    assert list(results["tasks"]) == ["textvqa"]  # the other one is run all the same
    assert error is not None
    assert f"{data}/vizwiz/val.json  [Annotations.zip of VizWiz-VQA]  for vizwiz" in str(error)
    assert "--tasks vizwiz" in error.hint


def test_an_empty_folder_is_an_error_that_lists_everything(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    results, error, _ = evaluate(tmp_path / "empty", tmp_path / "out")
    assert results["tasks"] == {}
    assert error is not None
    for task in TASKS:
        assert task.name in str(error)
        assert all(any(path in str(error) for path in wanted.paths) for wanted in (*task.files, task.pictures))


def test_a_bad_file_or_picture_stops_one_task_only(data: Path, tmp_path: Path) -> None:
    (data / "gqa/testdev_balanced_questions.json").write_text("{")
    (data / "textvqa/train_images/001a.jpg").write_bytes(b"no picture")
    (data / "vizwiz/val/VizWiz_val_00000001.jpg").unlink()
    (data / "nocaps/nocaps_val_4500_captions.json").write_text('{"images": [], "annotations": []}')
    results, error, lines = evaluate(data, tmp_path, tasks="gqa,textvqa,vizwiz,nocaps,scienceqa")
    assert list(results["tasks"]) == ["scienceqa"]
    assert set(results["failed"]) == {"gqa", "textvqa", "vizwiz", "nocaps"}
    assert error is not None
    assert "testdev_balanced_questions.json is not valid JSON" in str(error)
    assert "001a.jpg" in str(error)
    assert "VizWiz_val_00000001.jpg is missing (1 of 2 pictures are)" in str(error)
    assert "holds no item of NoCaps val" in str(error)
    assert len([line for line in lines if " stopped: " in line]) == 4


def test_what_is_answered_is_kept_and_a_second_run_asks_what_is_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answer = Predictor.answer

    def counting(self: Predictor, questions: Any, *rest: Any, **named: Any) -> Any:
        asked.extend(questions)
        return answer(self, questions, *rest, **named)

    monkeypatch.setattr(Predictor, "answer", counting)
    whole, _, _ = evaluate(data, tmp_path / "whole", tasks="textvqa")
    every = list(asked)
    picture = data / "textvqa/train_images/001a.jpg"
    good = picture.read_bytes()
    picture.write_bytes(b"no picture")
    asked.clear()
    results, error, _ = evaluate(data, tmp_path / "out", tasks="textvqa")
    assert results["tasks"] == {}
    assert "1 picture cannot be read; all else is answered and kept" in str(error)
    assert picture.name in str(error)
    kept = tmp_path / "out/predictions/textvqa.part.jsonl"
    first = list(asked)
    assert 0 < len(first) < len(every)
    assert len(kept.read_text().splitlines()) == 1 + len(first)
    with kept.open("a") as file:
        file.write('{"id": 1, "predi')  # a kill in the middle of a line
    picture.write_bytes(good)
    asked.clear()
    results, error, lines = evaluate(data, tmp_path / "out", tasks="textvqa")
    assert error is None
    assert sorted(first + asked) == sorted(every)
    assert f"{len(first)} answer of an earlier run kept, {len(asked)} item left to ask" in lines[0].replace("s ", " ")
    assert results["tasks"]["textvqa"]["score"] == whole["tasks"]["textvqa"]["score"]
    assert not kept.exists()
    two = [(tmp_path / run / "predictions/textvqa.jsonl").read_bytes() for run in ("whole", "out")]
    assert two[0] == two[1]


def test_the_prompt_is_kept_to_the_letter_beside_the_score(whole: tuple[Path, dict[str, Any]], viewer: Viewer) -> None:
    out, results = whole
    prompt = results["tasks"]["gqa"]["prompt"]
    assert "Answer the question using a single word or phrase." in prompt
    question = prompt[prompt.index("<user>") + len("<user>") : prompt.index("<assistant>")]
    assert prompt == viewer.asked(question.strip())
    assert json.loads((out / "predictions/gqa.jsonl").read_text().splitlines()[0])["prompt"] == prompt


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[1:], "line 1: does not say that these are predictions for vqav2"),
        (lambda rows: rows[:-1], "there is no prediction for 730"),
        (lambda rows: [*rows, rows[-1]], "line 5: 730 is there twice"),
        (lambda rows: [*rows, '{"id": 9, "prediction": ""}'], "line 5: 9 is no item of the task"),
        (lambda rows: [*rows[:-1], '{"id": 730, "prediction": null}'], "'prediction' is null"),
        (lambda rows: [*rows[:-1], "{"], "line 4 is not valid JSON"),
        (lambda rows: [], "line 1: does not say"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    whole: tuple[Path, dict[str, Any]], whole_data: Path, tmp_path: Path, spoil: Any, said: str
) -> None:
    rows = (whole[0] / "predictions/vqav2.jsonl").read_text().splitlines()
    kept = tmp_path / "kept/predictions/vqav2.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text("".join(row + "\n" for row in spoil(rows)))
    _, error, _ = evaluate(whole_data, None, tasks="vqav2", predictions=tmp_path / "kept")
    assert error is not None
    assert said in str(error)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[:-1], "the queries are not those of the pool"),
        (lambda rows: [*rows[:-1], rows[-1].replace('"rank": ', '"rank": 9')], "cannot be"),
        (lambda rows: [*rows[:-1], rows[-1].replace("text_to_image", "sideways")], "'sideways'"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(
    whole: tuple[Path, dict[str, Any]], whole_data: Path, tmp_path: Path, spoil: Any, said: str
) -> None:
    rows = (whole[0] / "predictions/coco_retrieval.jsonl").read_text().splitlines()
    kept = tmp_path / "kept/predictions/coco_retrieval.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text("".join(row + "\n" for row in spoil(rows)))
    _, error, _ = evaluate(whole_data, None, tasks="coco_retrieval", predictions=tmp_path / "kept")
    assert error is not None
    assert said in str(error)


def test_bad_options_are_refused(whole_data: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"data": tmp_path / "none"}, "is not a folder"),
        ({"mode": "strict"}, "unknown mode 'strict'"),
        ({"tasks": "sums"}, "unknown public task 'sums'"),
    ):
        with pytest.raises(AstreaError, match=said):
            evaluate_public(SHIPPED, **({"data": whole_data, "out": tmp_path, "report": Said()} | options))


# Ranking


def quiet(part: str) -> Any:
    return lambda done, total: None


@pytest.fixture(scope="module")
def pool(whole_data: Path) -> Pool:
    from test_public_readers import read

    return read("coco_retrieval", whole_data)


def test_embeddings_rank_as_the_whole_table_does(viewer: Viewer, pool: Pool) -> None:
    ranked = rank(viewer, pool, track=quiet)
    images = viewer.embed_pictures(pool.pictures, quiet("")).double()
    # One at a time, so that neither batches nor padding matter.
    texts = torch.cat([viewer.embed_texts([caption], quiet("")) for caption in pool.captions]).double()
    table = (images @ texts.T).numpy()
    np.testing.assert_array_equal(ranked.ranks_i2t, ranks_i2t(table.round(6), pool.owners))
    np.testing.assert_array_equal(ranked.ranks_t2i, ranks_t2i(table.round(6), pool.owners))


def test_the_best_are_the_best_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, candidates = rng.normal(size=(7, 5)), rng.normal(size=(9, 5))
    wanted = np.argsort(-(queries @ candidates.T), axis=1)[:, :4]
    np.testing.assert_array_equal(best(queries, candidates, 4), wanted)
    monkeypatch.setattr("astrea.evaluation.benchmarks.ranking._CELLS", 20)
    np.testing.assert_array_equal(best(queries, candidates, 4), wanted)
    assert best(queries, candidates, 50).shape == (7, 9)


def test_reranking_everything_is_ranking_by_likelihood(viewer: Viewer, pool: Pool) -> None:
    everything = len(pool.captions)
    ranked = rank(viewer, pool, rerank=everything, track=quiet)
    features = viewer.encode(pool.pictures)
    captions = [list(range(everything))] * len(pool.ids)
    table = torch.stack(viewer.predictor.likelihood(features, captions, pool.captions)).double().numpy()
    prior = torch.cat(viewer.predictor.likelihood(None, captions[:1], pool.captions)).double().numpy()
    np.testing.assert_array_equal(ranked.ranks_i2t, ranks_i2t((table - prior).round(3), pool.owners))
    np.testing.assert_array_equal(ranked.ranks_t2i, ranks_t2i(table.round(3), pool.owners))
    order = np.argsort(-(table - prior), axis=1)
    assert [row[0] for row in ranked.best_i2t] == order[:, 0].tolist()


def test_reranking_a_shortlist_leaves_the_rest_behind_it(viewer: Viewer, pool: Pool) -> None:
    before, after = (rank(viewer, pool, rerank=k, track=quiet) for k in (0, 1))
    # A shortlist of one cannot change its order: what was first stays so, what was not stays behind.
    np.testing.assert_array_equal(before.best_i2t, after.best_i2t)
    outside = np.array(pool.owners)[before.best_i2t[:, 0]] != np.arange(len(pool.ids))
    assert (after.ranks_i2t[outside] >= 2).all()
    assert (after.ranks_i2t[~outside] == 1).all()


# Through the command line


def test_the_command(astrea: Astrea, whole_data: Path, tmp_path: Path) -> None:
    common = ("benchmark", "shipped", "--data", whole_data, "--tasks", "gqa")
    code, out, err = astrea(*common, "--out", tmp_path, "--limit", 2, "--mode", "normalised", "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads((tmp_path / "results.json").read_text())
    code, out, err = astrea(*common, "--predictions", tmp_path)
    assert code == 0, err
    assert "gqa" in out
    assert "12,578" in out


def test_the_command_ends_with_1_for_missing_files(astrea: Astrea, data: Path, tmp_path: Path) -> None:
    (data / "gqa/testdev_balanced_questions.json").unlink()
    common = ("benchmark", "shipped", "--data", data, "--out", tmp_path)
    code, out, err = astrea(*common, "--tasks", "textvqa,gqa")
    assert code == 1
    assert "textvqa" in out
    assert str(data / "gqa/testdev_balanced_questions.json") in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "public", "--data", "."], "astrea benchmark MODEL --data DIR"),
        (["--data", "."], "public data sets: astrea benchmark"),
        (["--limit", "3"], "are for data of your own"),
        (["--out", "results"], "are for data of your own"),
    ],
)
def test_what_belongs_to_another_command_is_refused(astrea: Astrea, arguments: list[str], said: str) -> None:
    code, _, err = astrea("evaluate", "shipped", *arguments)
    assert code == 1
    assert said in err
