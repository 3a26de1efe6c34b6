"""Chat completions as the stock client and plain HTTP see them; answers are those of ``model.generate``."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from astrea.model.loaded import LoadedModel
from serving_clients import asking, data_url

QUESTIONS = (
    "what colour is the cat?",
    "describe the picture.",
    "how many cows are there?",
    "where is the red sun, left?",
)


def generated(loaded: LoadedModel, question: str, pictures: list[Image.Image], most: int = 12) -> list[int]:
    """The tokens that ``generate`` gives, without the padding behind them."""
    model, processor = loaded
    content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=pictures or None, text=[text])
    with torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=most, do_sample=False)
    return made[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def stock(client: TestClient) -> openai.OpenAI:
    """OpenAI's own client, talking to the server in this process."""
    return openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client, max_retries=0)


def test_the_stock_client_gets_the_answer_that_generate_gives(stock, loaded, pictures):
    answer = stock.chat.completions.create(
        model="tiny", messages=asking(QUESTIONS[0], data_url(pictures[0])), max_tokens=12, temperature=0,
        extra_body={"astrea": {"token_ids": True}},
    )  # fmt: skip
    wanted = generated(loaded, QUESTIONS[0], pictures[:1])
    assert answer.model_extra["astrea"]["token_ids"] == [wanted]
    text = loaded.processor.decode(wanted, skip_special_tokens=True).strip()
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens == len(wanted)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(wanted)


def test_gate_weights_are_those_of_the_model(ask, loaded, pictures):
    found = ask(QUESTIONS[0], data_url(pictures[0]))["astrea"]["pictures"][0]["gate_weights"]
    why = loaded.explain(pictures[0], QUESTIONS[0], max_new_tokens=2)
    assert found == pytest.approx(why.shares, abs=1e-3)


def test_thirty_two_clients_at_once_get_the_answers_of_one_alone(client, loaded, pictures):
    """Each its own, though prompts differ in length and pictures, and more come than are decoded together."""
    asked = [(QUESTIONS[i % 4], [pictures[(i * 7 + k) % 4] for k in range(i % 3)]) for i in range(32)]

    def one(question: str, shown: list[Image.Image]) -> list[int]:
        body = {"messages": asking(question, *map(data_url, shown)), "max_tokens": 12, "astrea": {"token_ids": True}}
        response = client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()["astrea"]["token_ids"][0]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda pair: one(*pair), asked))
    assert found == [generated(loaded, *pair) for pair in asked]


def test_a_stream_has_the_same_text_a_role_an_end_and_the_usage(stock, ask, pictures):
    url = data_url(pictures[1])
    whole = ask(QUESTIONS[1], url)
    options = {"max_tokens": 12, "stream": True, "stream_options": {"include_usage": True}}
    chunks = list(stock.chat.completions.create(model="tiny", messages=asking(QUESTIONS[1], url), **options))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[0].choices[0].delta.role == "assistant"
    ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert ends == [whole["choices"][0]["finish_reason"]]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.model_dump(include={"completion_tokens"}) == {
        "completion_tokens": whole["usage"]["completion_tokens"]
    }


def test_a_stream_ends_with_done(client):
    body = {"messages": asking("what is this?"), "max_tokens": 3, "stream": True}
    lines = [line for line in client.post("/v1/chat/completions", json=body).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "chat.completion.chunk" for line in lines[:-1])


def test_a_seed_repeats_draws_alone_and_among_others(ask, pictures):
    url = data_url(pictures[2])
    drawn = {"temperature": 1.5, "seed": 11, "n": 3, "astrea": {"token_ids": True}}
    first = ask(QUESTIONS[1], url, **drawn)
    with ThreadPoolExecutor(6) as pool:
        others = [pool.submit(ask, QUESTIONS[i % 4], url, temperature=1.0) for i in range(5)]
        again = ask(QUESTIONS[1], url, **drawn)
        assert [other.result()["object"] for other in others] == ["chat.completion"] * 5
    assert again["astrea"]["token_ids"] == first["astrea"]["token_ids"]
    assert len({tuple(ids) for ids in first["astrea"]["token_ids"]}) == 3
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]


def test_an_answer_ends_before_a_stop_text(ask, pictures):
    url = data_url(pictures[0])
    whole = ask(QUESTIONS[1], url)["choices"][0]["message"]["content"]
    word = whole.split()[3]
    choice = ask(QUESTIONS[1], url, stop=[word, "never said"])["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(word)].strip()
    assert choice["finish_reason"] == "stop"


def test_log_probabilities_are_those_of_the_scores(ask, loaded, pictures):
    found = ask(QUESTIONS[0], data_url(pictures[0]), logprobs=True, top_logprobs=3, max_tokens=4)
    told = found["choices"][0]["logprobs"]["content"]
    model, processor = loaded
    content = [{"type": "image"}, {"type": "text", "text": QUESTIONS[0]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    with torch.inference_mode():
        scores = model(**processor(images=[pictures[0]], text=[text])).logits[0, -1].clone()
        scores[model.config.image_token_id] = -torch.inf
    best = scores.log_softmax(-1).topk(3).values.tolist()
    assert [one["logprob"] for one in told[0]["top_logprobs"]] == pytest.approx(best, abs=1e-4)
    assert told[0]["logprob"] == pytest.approx(best[0], abs=1e-4)


def test_an_expert_that_is_switched_off_has_no_weight_and_others_keep_theirs_to_themselves(ask, pictures):
    url = data_url(pictures[0])
    found = ask(QUESTIONS[0], url, astrea={"without": ["detection"]})
    weights = found["astrea"]["pictures"][0]["gate_weights"]
    assert weights["detection"] == 0
    assert sum(weights.values()) > 0


def test_readings_and_masking_come_on_request_and_are_those_of_explain(ask, loaded, pictures):
    found = ask(QUESTIONS[0], data_url(pictures[0]), astrea={"readings": True, "masking": True})["astrea"]
    why = loaded.explain(pictures[0], QUESTIONS[0], max_new_tokens=12)
    read = found["pictures"][0]["readings"]
    assert {name: {k: v for k, v in one.items() if k != "mask"} for name, one in read.items()} == {
        name: reading.as_dict() for name, reading in why.readings.items()
    }
    assert {name: effect["answer"] for name, effect in found["masking"].items()} == {
        name: effect.answer for name, effect in why.masking.items()
    }
    for name, effect in found["masking"].items():
        assert effect["nats_lost"] == pytest.approx(why.masking[name].nats_lost, abs=1e-3)


def test_models_are_listed_and_an_unknown_one_is_not_found(stock):
    assert [model.id for model in stock.models.list()] == ["tiny"]
    assert stock.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        stock.chat.completions.create(model="gpt", messages=asking("what is this?"))


def test_health_and_metrics_tell_of_the_work_that_was_done(client, ask, pictures):
    ask(QUESTIONS[0], data_url(pictures[0]))
    assert client.get("/health").json()["status"] == "ok"
    text = client.get("/metrics").text
    for name in (
        "astrea_time_to_first_token_seconds_count",
        "astrea_batch_size_bucket",
        "astrea_generated_tokens_total",
    ):
        assert name in text
    assert 'astrea_expert_pictures{expert="detection",outcome="cached"}' in text
