"""How fast a server answers: many clients at once against one by one, and whether it stays right under too much load.

    python benchmarks/serve_load.py --pictures 384 --clients 16
    python benchmarks/serve_load.py --soak 600

The server is `astrea serve` in processes of its own, on this machine's processors, which the clients share; hence
clients that do little more than read a socket. Every request shows a picture of the drawn world that the server has not
seen, unless a workload says otherwise. Workloads:

* ``describe``: "describe the picture.", some forty tokens; ``ask``: a question, answered in a token or two;
* ``ask again``: a second question about a picture that has been shown before.

Figures: answers per second one by one and with ``--clients`` at once, in turns within the same run; time to the first
token (TTFT) and between tokens (TPOT), p50 and p95 in milliseconds, as clients see them; the parts of reading a prompt
(experts, fusion, language model), from the server's trace. ``--soak``: ``--soak-clients`` clients (four times as many
as are decoded together) ask without a pause; every answer is compared with the one given alone, and the resident memory
of the server and its processes is noted.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.world.scenes.draw import split_scene

RESULTS = Path(__file__).resolve().parent / "results" / "serve_load.json"
QUESTIONS = {
    "describe": "describe the picture.",
    "ask": "how many things are there?",
    "ask again": "what word is printed?",
}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
EVENT = re.compile(rb"^data: (\{.*\})$", re.MULTILINE)
PARTS = ("waiting", "experts", "fusion", "language", "first_token")


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: its text, and seconds from the request to the first and to the last token; how many tokens."""

    text: str
    first: float
    last: float
    tokens: int


def picture_url(number: int) -> str:
    """A picture of the drawn world as requests hold it."""
    file = io.BytesIO()
    Image.fromarray(split_scene("test", 0, number).image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def body_of(question: str, url: str) -> bytes:
    """A streamed request."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    options = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    return json.dumps({"messages": [{"role": "user", "content": content}], **options}).encode()


class Client:
    """A connection to the server that is kept. It shares the processors with the server, so it reads what comes as it
    comes, notes when, and makes sense of it once all is there."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=300)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> Answered | int:
        """An answer, or the status of a refusal."""
        began = time.perf_counter()
        self.connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        came = bytearray()
        times: list[tuple[int, float]] = []
        while not is_whole(came):
            new = self.connection.recv(1 << 16)
            if not new:
                raise SystemExit("the server ended an answer before its end")
            came += new
            times.append((len(came), time.perf_counter() - began))
        status = int(came[9:12])
        return answered(bytes(came), times) if status == 200 else status


def is_whole(came: bytearray) -> bool:
    """Whether a response has come to its end: the last chunk of a stream, or so many bytes as its head says."""
    end = came.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = LENGTH.search(came, 0, end)
    return len(came) >= end + 4 + int(length[1]) if length else came.endswith(b"\r\n0\r\n\r\n")


def answered(came: bytes, times: Sequence[tuple[int, float]]) -> Answered | int:
    """The answer in a stream of events.

    Args:
        times: how many bytes had come, and when.
    """
    first = last = 0.0
    text, tokens = "", 0
    for event in EVENT.finditer(came):
        chunk = json.loads(event[1])
        if "error" in chunk:
            return int(chunk["error"]["code"] == "deadline") or -1
        if chunk["choices"]:
            last = next(when for count, when in times if count >= event.end())
            first = first or last
            text += chunk["choices"][0]["delta"].get("content", "")
        elif chunk.get("usage"):
            tokens = chunk["usage"]["completion_tokens"]
    return Answered(text, first, last, tokens)


def is_open(port: int) -> bool:
    """Whether something listens at a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def served(options: Sequence[str], trace: Path) -> Iterator[tuple[int, int]]:
    """A server, as its port and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "astrea", "serve", "--port", str(port), "--trace", str(trace), *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not is_open(port):
            if process.poll() is not None:
                raise SystemExit(f"{shlex.join(command)} ended with status {process.returncode}")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def load(port: int, bodies: Sequence[bytes], clients: int) -> tuple[float, list[Answered]]:
    """Seconds for all requests by so many clients, and the answers in the order of the requests."""
    own = threading.local()

    def one(body: bytes) -> Answered:
        if not hasattr(own, "client"):
            own.client = Client(port)
        found = own.client.ask(body)
        if isinstance(found, int):
            raise SystemExit(f"a request was refused with status {found}")
        return found

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(one, bodies))
    return time.perf_counter() - began, answers


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds."""
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95]) if seconds else (0.0, 0.0)
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def figures(seconds: float, answers: Sequence[Answered], traced: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What one lot of requests took."""
    between = [(a.last - a.first) / (a.tokens - 1) for a in answers if a.tokens > 2]
    return {
        "requests": len(answers),
        "answers_per_second": round(len(answers) / seconds, 2),
        "tokens_per_answer": round(float(np.mean([a.tokens for a in answers])), 1),
        "ttft_ms": percentiles([a.first for a in answers]),
        "tpot_ms": percentiles(between),
        "parts_ms": {part: percentiles([one["seconds"][part] for one in traced]) for part in PARTS},
    }


def trace_since(trace: Path, lines: int) -> list[dict[str, Any]]:
    """What the server has noted of the requests after the first ``lines``."""
    return [json.loads(line) for line in trace.read_text().splitlines()[lines:]]


def compare(port: int, trace: Path, pictures: int, clients: int, numbers: Iterator[int]) -> dict[str, Any]:
    """Every workload, one by one and at once in turns of a quarter of the pictures."""
    found: dict[str, Any] = {}
    for name, question in QUESTIONS.items():
        lots: dict[int, tuple[float, list[Answered], list[dict[str, Any]]]] = {1: (0.0, [], []), clients: (0.0, [], [])}
        for _ in range(4):
            for many in lots:
                urls = [picture_url(next(numbers)) for _ in range(max(1, pictures // 4))]
                if name == "ask again":
                    load(port, [body_of(QUESTIONS["ask"], url) for url in urls], clients)
                before = len(trace.read_text().splitlines())
                seconds, answers = load(port, [body_of(question, url) for url in urls], many)
                time.sleep(0.05)
                all_seconds, all_answers, traced = lots[many]
                more = trace_since(trace, before)
                lots[many] = (all_seconds + seconds, [*all_answers, *answers], [*traced, *more])
        alone, together = (figures(*lots[many]) for many in (1, clients))
        ratio = together["answers_per_second"] / alone["answers_per_second"]
        found[name] = {"one_by_one": alone, f"{clients}_clients": together, "times_as_many_per_second": round(ratio, 2)}
        print(f"{name}: {alone['answers_per_second']} -> {together['answers_per_second']} answers/s, x{ratio:.2f}")
    first, again = (found[name]["one_by_one"]["ttft_ms"]["p50"] for name in ("ask", "ask again"))
    found["second_question_times_faster_to_first_token"] = round(first / again, 2)
    print(f"a second question about a picture: first token x{first / again:.2f} sooner ({first} -> {again} ms)")
    return found


def resident(pid: int) -> float:
    """MiB of the resident memory of a process and of those that it has started."""
    mine = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    tasks = Path(f"/proc/{pid}/task").iterdir()
    started = [child for task in tasks for child in (task / "children").read_text().split()]
    return mine + sum(resident(int(child)) for child in started)


def soak(port: int, pid: int, seconds: float, clients: int, pictures: int) -> dict[str, Any]:
    """Ask without a pause, and compare every answer with the one given alone."""
    bodies = [body_of(question, picture_url(n)) for n in range(pictures) for question in QUESTIONS.values()]
    _, alone = load(port, bodies, 1)
    counts = {"right": 0, "wrong": 0, "refused": 0, "other": 0}
    lock, end = threading.Lock(), time.monotonic() + seconds
    turn = itertools.count()

    def ask() -> None:
        client = Client(port)
        while time.monotonic() < end:
            place = next(turn) % len(bodies)
            found = client.ask(bodies[place])
            right = isinstance(found, Answered) and found.text == alone[place].text
            kind = (
                "right" if right else "wrong" if isinstance(found, Answered) else "refused" if found == 429 else "other"
            )
            with lock:
                counts[kind] += 1
            if kind == "refused":
                time.sleep(0.2)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < end:
        time.sleep(min(5.0, seconds / 20))
        memory.append(round(resident(pid), 1))
    for thread in threads:
        thread.join()
    warm = memory[len(memory) // 5]
    growth = memory[-1] / warm - 1
    print(f"{clients} clients, {seconds:.0f} s: {counts}; memory {warm} -> {memory[-1]} MiB ({growth:+.1%})")
    return {
        "seconds": seconds,
        "clients": clients,
        **counts,
        "memory_mib": memory,
        "growth_after_warm_up": round(growth, 4),
    }


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=384, help="per workload and number of clients")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--soak", type=float, default=0.0, help="seconds")
    parser.add_argument("--soak-clients", type=int, default=128)
    parser.add_argument("--soak-pictures", type=int, default=24)
    parser.add_argument("--serve", nargs="*", default=[], help="further words for astrea serve, MODEL first")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_intermixed_args(given)
    command = shlex.join(["python", "benchmarks/serve_load.py", *(sys.argv[1:] if given is None else given)])
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.jsonl"
        with served(options.serve, trace) as (port, pid):
            if options.soak:
                found = soak(port, pid, options.soak, options.soak_clients, options.soak_pictures)
            else:
                load(port, [body_of(QUESTIONS["ask"], picture_url(0))] * 4, 1)  # warm
                found = compare(port, trace, options.pictures, options.clients, itertools.count(1000))
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    part = "soak" if options.soak else "load"
    known[part] = {"command": command, "commit": commit(), "machine": machine(), **found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(options.out, known)
    return found


if __name__ == "__main__":
    main()
