"""CIDEr-D, BLEU and ROUGE-L against the reference's figures, and what must hold for any captions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.evaluation.metrics.captions import CaptionScore, bleu, cider_d, rouge_l
from repository import FIXTURES

GOLDEN = json.loads((FIXTURES / "metrics/captions.json").read_text(encoding="utf-8"))["cases"]
CAPTION = st.lists(st.sampled_from(["a", "dog", "red", "kite", "the", "park"]), min_size=1, max_size=9).map(" ".join)
CAPTION_SETS = st.lists(st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=3)), min_size=2, max_size=6)


def every_metric(candidates: list[str], references: list[list[str]]) -> dict[str, CaptionScore]:
    scores = {f"bleu{n}": score for n, score in enumerate(bleu(candidates, references), start=1)}
    return {"cider": cider_d(candidates, references), "rouge": rouge_l(candidates, references), **scores}


@pytest.mark.parametrize("case", GOLDEN, ids=[f"{len(case['candidates'])} images" for case in GOLDEN])
def test_figures_are_those_of_the_reference(case: dict) -> None:
    scores = every_metric(case["candidates"], case["references"])
    assert scores.keys() == case["figures"].keys()
    for name, (corpus, per_image) in case["figures"].items():
        assert scores[name].corpus == pytest.approx(corpus, abs=1e-6), name
        np.testing.assert_allclose(scores[name].per_image, per_image, rtol=0, atol=1e-6, err_msg=name)


def test_golden_set_is_large() -> None:
    assert len(GOLDEN[0]["candidates"]) >= 200


def test_one_image_scores_zero_cider() -> None:
    # log(1) = 0: with one document every word is in every document.
    assert cider_d(["a red dog"], [["a red dog"]]).corpus == 0.0


def test_mappings_are_matched_by_image_id() -> None:
    candidates, references = ["a red dog runs", "two cats sleep"], [["a dog runs"], ["two grey cats"]]
    by_id = {"y": references[1], "x": references[0]}
    for metric in (cider_d, rouge_l):
        listed = metric(candidates, references)
        keyed = metric({"x": candidates[0], "y": candidates[1]}, by_id)
        assert keyed.corpus == listed.corpus
        np.testing.assert_array_equal(keyed.per_image, listed.per_image)


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "no images"),
        (["a"], [], "1 candidates"),
        (["a"], [[]], "image 0"),
        (["a"], ["a"], "image 0"),
        ([["a"]], [["a"]], "one caption"),
        ({"x": "a"}, {"y": ["a"]}, "different images"),
        ({"x": "a"}, [["a"]], "both"),
        (["a"], {"x": ["a"]}, "both"),
        ("a", ["a"], "single string"),
    ],
)
def test_wrong_shapes_are_refused(candidates: object, references: object, message: str) -> None:
    for metric in (cider_d, bleu, rouge_l):
        with pytest.raises(ValueError, match=message):
            metric(candidates, references)  # type: ignore[arg-type]


def test_bleu_without_n_is_refused() -> None:
    with pytest.raises(ValueError, match="max_n"):
        bleu(["a"], [["a"]], max_n=0)


@settings(deadline=None, max_examples=50)
@given(CAPTION_SETS)
def test_ranges(rows: list[tuple[str, list[str]]]) -> None:
    for name, score in every_metric([c for c, _ in rows], [r for _, r in rows]).items():
        top = 10.0 if name == "cider" else 1.0
        assert score.per_image.shape == (len(rows),)
        assert score.per_image.min() >= 0.0, name
        assert score.per_image.max() <= top + 1e-9, name
        assert 0.0 <= score.corpus <= top + 1e-9, name


@settings(deadline=None, max_examples=50)
@given(CAPTION_SETS, st.randoms(use_true_random=False))
def test_order_of_images_and_references_does_not_matter(rows: list[tuple[str, list[str]]], rng: object) -> None:
    order = list(range(len(rows)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    before = every_metric([c for c, _ in rows], [r for _, r in rows])
    after = every_metric([rows[i][0] for i in order], [rows[i][1][::-1] for i in order])
    for name in before:
        assert after[name].corpus == pytest.approx(before[name].corpus, abs=1e-12), name
        np.testing.assert_allclose(after[name].per_image, before[name].per_image[order], atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(CAPTION_SETS)
def test_case_and_final_stops_do_not_matter(rows: list[tuple[str, list[str]]]) -> None:
    before = every_metric([c for c, _ in rows], [r for _, r in rows])
    after = every_metric([c.upper() + " ." for c, _ in rows], [r for _, r in rows])
    for name in before:
        np.testing.assert_array_equal(after[name].per_image, before[name].per_image)


@settings(deadline=None, max_examples=50)
@given(CAPTION_SETS)
def test_repeating_the_reference_is_perfect(rows: list[tuple[str, list[str]]]) -> None:
    references = [refs[:1] for _, refs in rows]
    candidates = [refs[0] for refs in references]
    assert rouge_l(candidates, references).corpus == pytest.approx(1.0)
    assert bleu(candidates, references)[0].corpus == pytest.approx(1.0, abs=1e-6)
