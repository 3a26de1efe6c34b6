"""An engine in a process of its own answers as one in the server's, and ends as that does."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from astrea.common.errors import AstreaError
from astrea.model.loaded import LoadedModel
from astrea.serving import engine_process
from astrea.serving.answers import Stream, Wanted
from astrea.serving.app import Server, application
from astrea.serving.conversation import prompt_of
from astrea.serving.engine_process import EngineProcess, placed_engine
from astrea.serving.errands import Errand
from astrea.serving.errors import ApiError
from astrea.serving.limits import Limits
from astrea.serving.sampling import Sampling
from astrea.serving.settings import Settings
from astrea.serving.within import EngineWithin
from serving_clients import asking, data_url

CHAT = "/v1/chat/completions"
LIMITS = Limits(running=4, waiting=40, tokens=24, picture_seconds=20, seconds=60)
CHANGES = {"id", "created"}


class Silent:
    """Nobody watches, but for the end."""

    has_ended = False

    def step(self, running: int, waiting: int) -> None: ...

    def failed(self, error: Exception) -> None: ...

    def ended(self) -> None:
        self.has_ended = True


@pytest.fixture(scope="module")
def own(loaded: LoadedModel) -> LoadedModel:
    """A copy of the small model, whose memory may become a file's."""
    return LoadedModel(copy.deepcopy(loaded.model), loaded.processor)


@pytest.fixture(scope="module")
def apart(own: LoadedModel) -> Iterator[TestClient]:
    """A server whose engine is in a process of its own, and the experts in another."""
    settings = Settings(name="tiny", limits=LIMITS, engine_process=True, expert_process=True)
    with TestClient(application(Server(own, settings))) as running:
        yield running


def url(number: int) -> str:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
    return data_url(Image.fromarray(pixels))


def lasting(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from one to the next."""
    return {key: value for key, value in answer.items() if key not in CHANGES}


BODIES: list[dict[str, Any]] = [
    {"messages": asking("what is this?")},
    {"messages": asking("what is this?", url(0)), "logprobs": True, "top_logprobs": 3},
    {"messages": asking("what are these?", url(0), url(1)), "n": 3, "temperature": 1.0, "seed": 5},
    {"messages": asking("what is this?", url(2)), "astrea": {"readings": True, "masking": True, "token_ids": True}},
    {"messages": asking("what is this?", url(2)), "stop": ["e"], "astrea": {"without": ["detection"]}},
    {"messages": asking("what is this? " * 400)},
]


@pytest.mark.parametrize("body", BODIES)
def test_answers_are_those_of_an_engine_in_the_server(client: TestClient, apart: TestClient, body: dict[str, Any]):
    there, here = apart.post(CHAT, json={"max_tokens": 12, **body}), client.post(CHAT, json={"max_tokens": 12, **body})
    assert there.status_code == here.status_code
    assert_same(lasting(there.json()), lasting(here.json()))


def assert_same(one: Any, other: Any, where: str = "answer") -> None:
    """Numbers may differ in their last places (four of them are told): by which rows are computed together."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for number, each in enumerate(zip(one, other, strict=True)):
            assert_same(*each, f"{where}[{number}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=2e-4), where
    else:
        assert one == other, where


def test_streams_vectors_and_counts_too(client: TestClient, apart: TestClient):
    streamed = {"messages": asking("what is this?", url(3)), "max_tokens": 12, "stream": True}
    assert words(apart.post(CHAT, json=streamed).text) == words(client.post(CHAT, json=streamed).text) != ""
    given = {"input": ["a cat", url(3)]}
    there, here = (one.post("/v1/embeddings", json=given).json() for one in (apart, client))
    rows = [np.array([row["embedding"] for row in one["data"]]) for one in (there, here)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    assert there["usage"] == here["usage"]
    assert apart.post("/v1/embeddings", json={"input": [""]}).status_code == 400
    assert 'astrea_expert_pictures{expert="detection",outcome="run"}' in apart.get("/metrics").text
    assert apart.get("/health").json() == {"status": "ok", "waiting": 0, "running": 0}


def words(events: str) -> str:
    """The words of a stream of events."""
    chunks = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def test_many_at_once_are_each_told_their_own_answer(apart: TestClient):
    bodies = [
        {"messages": asking(f"what is {n}?", *([url(n)] if n % 2 else [])), "max_tokens": 9 + n} for n in range(12)
    ]
    alone = [apart.post(CHAT, json=body).json()["choices"] for body in bodies]
    with ThreadPoolExecutor(12) as pool:
        together = [one.json()["choices"] for one in pool.map(lambda body: apart.post(CHAT, json=body), bodies * 2)]
    assert together == alone * 2


@contextlib.asynccontextmanager
async def working(own: LoadedModel, limits: Limits = LIMITS) -> AsyncIterator[EngineProcess]:
    """An engine in a process of its own, in this event loop."""
    engine = placed_engine(own, limits, Silent(), 0.0, 0.0, False, True)
    assert isinstance(engine, EngineProcess)
    await engine.opened()
    try:
        yield engine
    finally:
        await asyncio.wait_for(engine.closed(), 60)


def prompt(own: LoadedModel, question: str = "what is this?") -> Any:
    return prompt_of(own.processor, [{"role": "user", "content": question}], [])


def stream(engine: EngineProcess, own: LoadedModel, seconds: float = 60, **wanted: Any) -> Stream:
    return Stream(engine, prompt(own), Wanted(Sampling(temperature=1.0), **wanted), time.monotonic() + seconds)


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_what_waits_is_bounded_given_up_late_and_finished_at_the_end(own: LoadedModel):
    async def visit() -> None:
        limits = Limits(running=2, waiting=3, tokens=400, seconds=60)
        async with working(own, limits) as engine:
            late = stream(engine, own, seconds=0.0)
            with pytest.raises(ApiError, match="in time"):
                await late.all()

            # As many as may wait; nobody has read a word of them yet.
            taken = [stream(engine, own, choices=2) for _ in range(3)]
            assert engine.waiting == 3
            with pytest.raises(ApiError, match="too many"):
                stream(engine, own)
            for one in taken:
                one.job.cancel()
                await one.all()
            await until(lambda: engine.waiting == 0)
            assert not engine._jobs

            # At the end what was accepted is answered.
            last = [stream(engine, own, most=20) for _ in range(3)]
            assert await engine.done(Errand("text vector", text="a cat"))
        told = [await one.all() for one in last]
        assert [pieces[-1].finish is not None for pieces in told] == [True] * 3
        assert not engine.alive
        with pytest.raises(ApiError, match="too many"):
            stream(engine, own)

    asyncio.run(visit())


def test_when_the_process_is_killed_who_waits_is_told_and_the_server_says_that_it_is_not_well(own: LoadedModel):
    async def visit() -> None:
        watch = Silent()
        engine = placed_engine(own, Limits(tokens=10_000, seconds=60), watch, 0.0, 0.0, False, True)
        assert isinstance(engine, EngineProcess)
        await engine.opened()
        assert engine.alive
        process = engine._process.pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        taken, errand = stream(engine, own), asyncio.ensure_future(engine.done(Errand("text vector", text="a cat")))
        await asyncio.sleep(0)
        os.kill(process, signal.SIGKILL)
        with pytest.raises(ApiError, match="failed"):
            await taken.all()
        with pytest.raises(ApiError, match="failed"):
            await errand
        assert watch.has_ended
        assert not engine.alive
        with pytest.raises(ApiError, match="failed"):
            stream(engine, own)
        await asyncio.wait_for(engine.closed(), 60)

    asyncio.run(visit())


def test_health_says_that_the_model_has_gone(own: LoadedModel):
    server = Server(own, Settings(name="tiny", limits=LIMITS, engine_process=True, expert_process=False))
    with TestClient(application(server)) as client:
        assert client.get("/health").status_code == 200
        assert isinstance(server.engine, EngineProcess)
        server.engine._process.kill()
        until = time.monotonic() + 30
        while client.get("/health").status_code == 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert client.get("/health").status_code == 503
        assert client.post(CHAT, json={"model": "tiny", "messages": asking("is there a cat?")}).status_code == 500


def test_errands_that_are_refused_say_why(own: LoadedModel):
    async def visit() -> None:
        async with working(own) as engine:
            with pytest.raises(AstreaError, match="empty"):
                await engine.done(Errand("text vector", text=""))

    asyncio.run(visit())


def test_a_model_on_several_cores_is_sent_unless_it_is_to_stay(own: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    def kind(threads: int, wanted: bool | None) -> type:
        monkeypatch.setattr(engine_process.torch, "get_num_threads", lambda: threads)
        return type(placed_engine(own, LIMITS, Silent(), 0.0, 0.0, False, wanted))

    assert kind(2, None) is EngineProcess
    assert kind(1, None) is EngineWithin
    assert kind(2, False) is EngineWithin
