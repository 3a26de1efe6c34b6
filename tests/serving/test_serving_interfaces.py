"""Embeddings and responses, as the stock client asks for them."""

from __future__ import annotations

import numpy as np
import openai
import pytest
import torch
from starlette.testclient import TestClient

from astrea.evaluation.generate import Predictor
from astrea.retrieval.pictures import text_vector
from serving_clients import data_url


@pytest.fixture(scope="module")
def stock(client: TestClient) -> openai.OpenAI:
    """OpenAI's own client, talking to the server in this process."""
    return openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client, max_retries=0)


def test_vectors_of_texts_and_pictures_are_the_models(stock, loaded, pictures):
    model, processor = loaded
    found = stock.embeddings.create(model="tiny", input=["a red cow.", data_url(pictures[0])])
    rows = np.array([one.embedding for one in found.data])
    assert rows[0] == pytest.approx(
        text_vector(model, Predictor(model, processor.tokenizer), "a red cow.")[0], abs=1e-5
    )
    with torch.no_grad():
        wanted = model.embed_image(processor(images=[pictures[0]])["pixel_values"])[0].numpy()
    assert rows[1] == pytest.approx(wanted, abs=1e-5)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-4)
    plain = stock.embeddings.create(model="tiny", input="a red cow.", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(rows[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("wrong", ["", " ", ["a"] * 65, ["data:image/png;base64,AAAA"], "word " * 9000])
def test_what_has_no_vector_is_refused(client, wrong):
    answer = client.post("/v1/embeddings", json={"input": wrong})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["message"]


def test_a_response_is_the_answer_of_chat_completions(stock, ask, pictures):
    url = data_url(pictures[0])
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "describe the picture."}]
    found = stock.responses.create(
        model="tiny", input=[{"role": "user", "content": content}], max_output_tokens=12, temperature=0
    )
    assert found.output_text == ask("describe the picture.", url)["choices"][0]["message"]["content"]
    assert found.status in ("completed", "incomplete")
    assert found.usage.output_tokens == 12 or found.status == "completed"
    assert stock.responses.create(model="tiny", input="what is this?", max_output_tokens=3).output_text is not None


def test_a_streamed_response_has_the_same_text_and_ends_with_the_response(stock):
    options = {"model": "tiny", "input": "what is this?", "max_output_tokens": 5}
    events = list(stock.responses.create(**options, stream=True))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == stock.responses.create(**options).output_text == events[-1].response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"


def test_what_a_response_would_have_to_remember_is_refused(client):
    body = {"input": "and then?", "previous_response_id": "resp_1"}
    assert "nothing is kept" in client.post("/v1/responses", json=body).json()["error"]["message"]
