"""Experts that are expected not to be needed are not run; at threshold 0 all are, and answers are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from starlette.testclient import TestClient

from astrea.common.errors import AstreaError
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar
from astrea.model.loaded import LoadedModel
from astrea.serving.app import Server, application
from astrea.serving.conversation import Prompts
from astrea.serving.features import Picture
from astrea.serving.limits import Limits
from astrea.serving.settings import Settings
from astrea.serving.skipping import OTHERS, ExpectedWeights, thresholds
from serving_clients import asking, data_url

QUESTION = "what colour is the cat?"


@pytest.fixture(scope="module")
def doubting(loaded: LoadedModel, pictures) -> Iterator[LoadedModel]:
    """The model with what is usual in the few pictures that there are."""
    with torch.inference_mode():
        features = loaded.model.encode_images(loaded.processor(images=pictures)["pixel_values"])
    loaded.model.confidence_estimator = ConfidenceEstimator(
        {name: learn_familiar(part) for name, part in features.items()}
    )
    yield loaded
    loaded.model.confidence_estimator = None


def test_expected_weights_are_near_those_with_the_picture(doubting, pictures):
    model, processor = doubting
    prompts = Prompts(processor, None, tuple(model.experts.names), Limits())
    shown = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    images = [Picture("", processor(images=pictures[:1])["pixel_values"][0])]
    prompt = prompts.made([{"role": "user", "content": shown}], images, frozenset())
    found = ExpectedWeights(model, 0.2).of(prompt)
    text = processor.apply_chat_template([{"role": "user", "content": shown}], add_generation_prompt=True)
    inputs = processor(images=pictures[:1], text=text)
    weights = model.shares(**inputs)[0]
    assert list(found.values()) == pytest.approx(weights.tolist(), abs=0.15)
    assert sum(found.values()) < 1
    assert ExpectedWeights(model, 0.2).next(prompt, set(found)) == max(found, key=found.get)
    off = dataclasses.replace(prompt, without=frozenset(["detection"]))
    assert "detection" not in ExpectedWeights(model, 0.2).of(off)
    # The one that is needed most is run whatever the threshold is.
    assert len(ExpectedWeights(model, 1.0).skipped(prompt)) == len(model.experts.names) - 1
    assert ExpectedWeights(model, 0.0).skipped(prompt) == set()
    # Each expert by its own threshold; those that are not named by the one for all others.
    weakest = min(found, key=found.get)
    assert ExpectedWeights(model, {weakest: found[weakest] + 1e-3}).skipped(prompt) == {weakest}
    assert weakest not in ExpectedWeights(model, {weakest: 0.0, OTHERS: 1.0}).skipped(prompt)
    with pytest.raises(AstreaError, match="no such expert"):
        ExpectedWeights(model, {"smell": 0.1})


def test_thresholds_are_for_all_experts_or_for_one():
    assert thresholds([]) == {}
    assert thresholds(["0.2"]) == {OTHERS: 0.2}
    assert thresholds(["0.2", "detection=0.3"]) == {OTHERS: 0.2, "detection": 0.3}
    for wrong in ("much", "1.5", "detection=", "detection=-1", "nan"):
        with pytest.raises(AstreaError, match="from 0 to 1"):
            thresholds([wrong])


def test_what_is_skipped_is_not_run_and_is_told(doubting, pictures, ask):
    server = Server(doubting, Settings(name="tiny", skip_below=1.0))
    with TestClient(application(server)) as client:
        body = {"messages": asking(QUESTION, data_url(pictures[0])), "max_tokens": 4}
        found = client.post("/v1/chat/completions", json=body).json()["astrea"]["pictures"][0]
    assert len(found["skipped"]) == 3
    assert [name for name, weight in found["gate_weights"].items() if weight == 0] == found["skipped"]
    counts = server.engine.features.counts
    assert {name for name, count in counts.items() if count.skipped} == set(found["skipped"])
    assert sum(count.run for count in counts.values()) == 1
    assert ask(QUESTION, data_url(pictures[0]))["astrea"]["pictures"][0]["skipped"] == []


@pytest.mark.parametrize("sure", [0.0, 1.0])
def test_who_is_not_sure_how_to_begin_has_skipped_experts_look_one_by_one(doubting, pictures, ask, sure):
    """All of them at last, where no probability is high enough; the answer is that of all experts, and none has looked
    twice."""
    server = Server(doubting, Settings(name="tiny", skip_below=1.0, skip_sure=sure))
    reads, gates = [], []
    with TestClient(application(server)) as client:
        look = server.engine.vision.look
        server.engine.vision.look = lambda job: reads.append(sorted(job.wanted)) or look(job)
        skipped = server.engine._expected.skipped
        server.engine._expected.skipped = lambda prompt: gates.append(prompt) or skipped(prompt)
        body = {"messages": asking(QUESTION, data_url(pictures[0])), "max_tokens": 4, "temperature": 0}
        found = client.post("/v1/chat/completions", json=body).json()
        plain = client.post("/v1/chat/completions", json={**body, "messages": asking("hello")}).json()
    assert plain["choices"][0]["message"]["content"] is not None
    assert len(gates) == len(reads)  # the gate is asked once for every look
    seen = found["astrea"]["pictures"][0]
    counts = server.engine.features.counts
    runs = {name: count.run for name, count in counts.items()}
    assert sum(count.skipped for count in counts.values()) == 3
    if not sure:
        assert sum(runs.values()) == 1
        assert len(reads) == 1
        return
    assert set(runs.values()) == {1}
    assert seen["skipped"] == []
    assert [len(wanted) for wanted in reads] == [0, 1, 2, 3]
    whole = ask(QUESTION, data_url(pictures[0]), max_tokens=4, temperature=0)
    assert found["choices"][0]["message"]["content"] == whole["choices"][0]["message"]["content"]
    assert seen["gate_weights"] == pytest.approx(whole["astrea"]["pictures"][0]["gate_weights"], abs=1e-3)


def test_one_that_stops_begins_with_what_it_has(doubting, pictures):
    server = Server(doubting, Settings(name="tiny", skip_below=1.0, skip_sure=1.0))
    with TestClient(application(server)) as client:
        take = server.engine._take

        def stop(jobs):
            with server.engine._changed:
                server.engine._stopping = True
            take(jobs)

        server.engine.vision._seen = stop
        body = {"messages": asking(QUESTION, data_url(pictures[0])), "max_tokens": 2}
        found = client.post("/v1/chat/completions", json=body).json()
    assert len(found["astrea"]["pictures"][0]["skipped"]) == 3


def test_a_model_that_does_not_keep_what_is_usual_cannot_skip(loaded):
    loaded.model.confidence_estimator = None
    with pytest.raises(AstreaError, match="does not say what is usual"):
        ExpectedWeights(loaded.model, 0.1)
    ExpectedWeights(loaded.model, 0.0)
