"""Two replicas behind one address: one is killed while clients are at work, and no answer is lost.

Needs Ray (`pip install "astrea-vlm[ray]"`), which the tests are otherwise run without.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from PIL import Image

from astrea.world.scenes.draw import split_scene
from serving_clients import asking, data_url

pytestmark = pytest.mark.slow

REQUESTS, CLIENTS, PICTURES = 200, 8, 8
PATIENCE = 600
"""Seconds that replicas may take to start."""


def replicas_of(parent: int) -> list[int]:
    """Processes of Ray's that hold a replica, among those that a process has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (entry / "cmdline").read_bytes()
            if name.startswith(b"ray::ServeReplica") and parent in ancestors(int(entry.name)):
                found.append(int(entry.name))
    return found


def ancestors(process: int) -> Iterator[int]:
    """The processes that a process comes from, its parent first."""
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        yield process


@contextlib.contextmanager
def serving(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`astrea serve --replicas 2` of the bundled model, once it answers."""
    command = [sys.executable, "-m", "astrea", "serve", "--port", str(port), "--replicas", "2"]
    process = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": ""})
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.5)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()


def test_no_answer_is_lost_when_one_of_two_replicas_is_killed():
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    urls = [data_url(Image.fromarray(split_scene("test", 0, number).image)) for number in range(PICTURES)]
    halfway = threading.Event()
    done = 0

    def ask(number: int) -> str:
        nonlocal done
        # OpenAI's client asks again, by itself, where an answer ends with a status of 500 or more.
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=300)
        messages = asking("describe the picture.", urls[number % PICTURES])
        answer = client.chat.completions.create(model="shipped", messages=messages, temperature=0)
        done += 1
        if done >= REQUESTS // 4:
            halfway.set()
        return answer.choices[0].message.content

    with serving(port) as server, ThreadPoolExecutor(CLIENTS) as pool:
        alone = [ask(number) for number in range(PICTURES)]
        first = replicas_of(server.pid)
        assert len(first) == 2
        asked = [pool.submit(ask, number) for number in range(REQUESTS)]
        assert halfway.wait(PATIENCE)
        os.kill(first[0], signal.SIGKILL)
        assert [one.result() for one in asked] == [alone[number % PICTURES] for number in range(REQUESTS)]
        end = time.monotonic() + PATIENCE
        while len(replicas_of(server.pid)) < 2:  # another one takes its place
            assert time.monotonic() < end
            time.sleep(0.5)
