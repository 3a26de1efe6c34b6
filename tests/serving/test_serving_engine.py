"""Too much at once, too late, given up, failed, and asked to end: what becomes of requests then."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from astrea.model.loaded import LoadedModel
from astrea.serving import answers, pace
from astrea.serving import engine as engine_module
from astrea.serving.app import Server, application
from astrea.serving.engine import Engine
from astrea.serving.errors import ApiError
from astrea.serving.job import Finished, Job, Piece
from astrea.serving.limits import Limits
from astrea.serving.sampling import Chosen, Sampling
from astrea.serving.settings import Settings
from serving_clients import asking

CHAT = "/v1/chat/completions"
BODY = {"messages": asking("what colour is the cat?"), "max_tokens": 6, "astrea": {"token_ids": True}}


@pytest.fixture(scope="module")
def server(loaded: LoadedModel) -> Server:
    """A server that takes four requests at a time."""
    return Server(loaded, Settings(name="tiny", limits=Limits(running=2, waiting=2, tokens=8, seconds=30)))


@pytest.fixture(scope="module")
def few(server: Server) -> Iterator[TestClient]:
    with TestClient(application(server)) as running:
        yield running


@contextmanager
def held_up(engine: Engine) -> Iterator[None]:
    """While open, the engine does nothing."""
    begun, go_on = threading.Event(), threading.Event()
    engine.call(lambda: (begun.set(), go_on.wait(30)))
    begun.wait(30)
    try:
        yield
    finally:
        go_on.set()


def until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def job_for(engine: Engine, prompt, emit, **more) -> Job:
    options = {"choices": 1, "most": 6, "stops": (), "deadline": time.monotonic() + 30, **more}
    tokenizer = engine.processor.tokenizer
    return Job(prompt, Sampling(), decode=lambda ids: tokenizer.decode(ids), emit=emit, **options)


def test_who_comes_when_too_many_wait_is_told_to_come_again_and_the_others_are_answered(few, server):
    with ThreadPoolExecutor(4) as pool:
        with held_up(server.engine):
            waiting = [pool.submit(few.post, CHAT, json=BODY) for _ in range(4)]
            until(lambda: server.engine.waiting + sum(one.done() for one in waiting) == 4)
            extra = few.post(CHAT, json=BODY)
        answers = [one.result() for one in waiting]
    refused = [answer for answer in [*answers, extra] if answer.status_code == 429]
    assert extra.status_code == 429
    assert [int(answer.headers["retry-after"]) for answer in refused] == [1] * len(refused)
    said = [answer.json()["astrea"] for answer in answers if answer.status_code == 200]
    assert len(said) + len(refused) == 5
    assert said == [few.post(CHAT, json=BODY).json()["astrea"]] * len(said)


def test_a_request_whose_time_is_over_is_told_so_in_either_form(loaded):
    late = Server(loaded, Settings(name="tiny", limits=Limits(seconds=0.05)))
    with TestClient(application(late)) as client, ThreadPoolExecutor(2) as pool:
        with held_up(late.engine):
            whole = pool.submit(client.post, CHAT, json=BODY)
            stream = pool.submit(client.post, CHAT, json={**BODY, "stream": True})
            until(lambda: late.engine.waiting == 2)
            time.sleep(0.06)
        assert whole.result().status_code == 408
        assert whole.result().json()["error"]["code"] == "deadline"
        told = json.loads(stream.result().text.removeprefix("data: "))
        assert told["error"]["code"] == "deadline"


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_whose_client_goes_is_given_up(few, server, stream):
    """Spoken to as an ASGI server would: the body, and then that the connection has ended."""
    body = json.dumps({**BODY, "stream": stream, "max_tokens": 8}).encode()

    async def visit() -> None:
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if messages:
                return messages.pop(0)
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message) -> None:
            pass

        headers = [(b"content-type", b"application/json"), (b"host", b"testserver")]
        scope = {"type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"}}
        with held_up(server.engine):
            task = asyncio.create_task(application(server)(scope, receive, send))
            while not server.engine.waiting:
                await asyncio.sleep(0.005)
            gone.set()
            await asyncio.wait_for(task, 20)

    before = server.metrics.tokens._value.get()
    asyncio.run(visit())
    until(lambda: server.engine.waiting == 0 and server.engine.running == 0)
    assert server.metrics.tokens._value.get() == before
    assert few.post(CHAT, json=BODY).status_code == 200


def test_one_request_that_cannot_be_read_fails_alone(few, server, monkeypatch):
    real = engine_module.prefill

    def failing(model, jobs, fill):
        if any(len(job.prompt.ids) > 20 for job in jobs):
            raise RuntimeError("a secret of the request")
        return real(model, jobs, fill)

    monkeypatch.setattr(engine_module, "prefill", failing)
    long = {**BODY, "messages": asking("where is the cat? " * 8)}
    with ThreadPoolExecutor(3) as pool:
        with held_up(server.engine):
            waiting = [pool.submit(few.post, CHAT, json=body) for body in (BODY, long)]
            until(lambda: server.engine.waiting == 2)
        right, wrong = (one.result() for one in waiting)
    assert right.status_code == 200
    assert wrong.status_code == 500
    assert "secret" not in wrong.text


def test_a_step_that_fails_costs_its_requests_and_no_others(few, server, monkeypatch):
    want = few.post(CHAT, json=BODY).json()["astrea"]
    with monkeypatch.context() as patch:
        patch.setattr(server.engine, "_step", lambda: 1 / 0)
        assert few.post(CHAT, json=BODY).status_code == 500
    assert few.post(CHAT, json=BODY).json()["astrea"] == want


def test_whatever_fails_in_the_engine_it_goes_on(few, server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(server.engine, "_admit", lambda: 1 / 0)
        assert few.post(CHAT, json=BODY).status_code == 500
    assert few.post(CHAT, json=BODY).status_code == 200
    assert few.get("/health").json() == {"status": "ok", "waiting": 0, "running": 0}


def test_an_engine_that_is_stopped_answers_what_it_has_taken_and_takes_no_more(server, loaded):
    stopping = Engine(loaded, server.settings.limits, server)
    stopping.start()
    prompt = server.prompts.made([{"role": "user", "content": "what is this?"}], [], frozenset())
    told: list[list[Piece | Finished]] = [[], []]
    with held_up(stopping):
        for number in range(2):
            stopping.submit(job_for(stopping, prompt, told[number].append, choices=2))
        end = threading.Thread(target=stopping.stop)
        end.start()
        until(lambda: stopping._stopping)
    end.join(20)
    assert [one[-1] for one in told] == [Finished(), Finished()]
    assert [sum(piece.finish is not None for piece in one[:-1]) for one in told] == [2, 2]
    with pytest.raises(ApiError) as late:
        stopping.submit(job_for(stopping, prompt, told[0].append))
    assert late.value.status == 429


def test_while_many_are_answered_a_stream_gets_several_tokens_at_a_time_but_the_first_and_the_last_at_once(
    server, loaded, monkeypatch
):
    """Told with clocks of its own: no other answer is really being decoded."""
    now, many = 100.0, Engine(loaded, server.settings.limits, server)
    monkeypatch.setattr(many, "submit", lambda job: None)
    monkeypatch.setattr(Engine, "running", property(lambda engine: 16))
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    prompt = server.prompts.made([{"role": "user", "content": "what is this?"}], [], frozenset())
    pieces = [Piece(0, f" {n}", Chosen(n), "stop" if n == 7 else None) for n in range(8)]

    async def told() -> list[list[Piece]]:
        nonlocal now
        stream = answers.Stream(many, prompt, answers.Wanted(Sampling()), now + 30)
        for piece in pieces:
            now += pace.gap(16) * 0.4
            stream.job.emit(piece)
        stream.job.emit(Finished())
        return [batch async for batch in stream.batches()]

    lots = asyncio.run(told())
    assert [piece for lot in lots for piece in lot] == pieces
    assert [len(lot) for lot in lots] == [1, 3, 3, 1]
