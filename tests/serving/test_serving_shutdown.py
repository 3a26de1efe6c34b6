"""`astrea serve` is asked to end while clients are at work: what it has accepted it answers, and it can start again."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from astrea.world.scenes.draw import split_scene
from serving_clients import asking, data_url

pytestmark = pytest.mark.slow

CLIENTS, ASK_BEFORE = 12, 12
"""Clients at a time, and answers that there must be before the server is asked to end."""


@contextlib.contextmanager
def serving(port: int, trace: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`astrea serve` of the bundled model in a process of its own, once it listens."""
    command = [sys.executable, "-m", "astrea", "serve", "--port", str(port), "--trace", str(trace)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def bodies() -> list[bytes]:
    """Questions about pictures of which a server that has just started knows none."""
    urls = [data_url(Image.fromarray(split_scene("test", 0, number).image)) for number in range(24)]
    asked = [asking("describe the picture.", url) for url in urls]
    return [json.dumps({"messages": one, "stream": True, "temperature": 0}).encode() for one in asked]


def ask(port: int, body: bytes) -> str | None:
    """The whole answer, or None where the request was not accepted: nobody listened, or it was refused in words.

    Raises:
        AssertionError: it was accepted, and the answer broke off.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
    except (ConnectionError, http.client.RemoteDisconnected):
        return None
    lines = response.read().decode().splitlines()  # IncompleteRead where it breaks off
    if response.status != 200:
        assert json.loads("".join(lines))["error"]["message"]
        assert response.status in (429, 503)
        return None
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert lines[-2] == "data: [DONE]"
    assert [one["finish_reason"] for chunk in chunks for one in chunk["choices"]][-1] in ("stop", "length")
    return "".join(one["delta"].get("content", "") for chunk in chunks for one in chunk["choices"])


def test_what_was_accepted_when_it_is_asked_to_end_is_answered_and_it_serves_again_at_once(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = bodies()
    answers: list[tuple[int, str]] = []
    broken: list[BaseException] = []
    refused = 0
    lock, enough = threading.Lock(), threading.Event()

    def client(first: int) -> None:
        nonlocal refused
        for place in range(first, 10_000):
            try:
                found = ask(port, asked[place % len(asked)])
            except (AssertionError, OSError, http.client.HTTPException) as error:
                broken.append(error)
                return
            if found is None:
                refused += 1
                return
            with lock:
                answers.append((place % len(asked), found))
            if len(answers) >= ASK_BEFORE:
                enough.set()

    trace = tmp_path / "trace.jsonl"
    with serving(port, trace) as server:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        assert enough.wait(120)
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(120)
        assert server.wait(60) == 0
    assert broken == []
    assert refused == CLIENTS
    # Nothing that the server answered got lost on its way, and nothing was answered twice.
    assert len(trace.read_text().splitlines()) == len(answers)
    with serving(port, trace):
        alone = {place: ask(port, asked[place]) for place in {place for place, _ in answers}}
    assert answers == [(place, alone[place]) for place, _ in answers]
