"""What serve does."""

from __future__ import annotations

import ipaddress
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.paths import file_guard
from astrea.model.loaded import load
from astrea.serving.app import Server, application
from astrea.serving.limits import Limits
from astrea.serving.logs import log_to_standard_error
from astrea.serving.replicas import Source, deployed, run
from astrea.serving.settings import Settings
from astrea.serving.skipping import thresholds
from astrea.world.scenes.example import example_picture

SHORTEST_KEY = 16
LOCAL = ("localhost", "127.0.0.1", "[::1]")


def serve(
    model: Path,
    host: str,
    port: int,
    *,
    name: str | None,
    key_file: Path | None,
    allowed: Sequence[str],
    trace: Path | None,
    skip_below: Sequence[str],
    skip_sure: float,
    expert_process: bool | None,
    engine_process: bool | None,
    index: Path | None,
    caps: Mapping[str, Any],
    replicas: str | None,
    device: Device,
    trust_remote_code: bool,
) -> None:
    """Serve a model until the process is asked to end."""
    many = None if replicas is None else read_replicas(replicas)
    key = None if key_file is None else read_key(key_file)
    local = is_local(host)
    if key is None and not local:
        raise AstreaError(
            f"--host {host} lets other machines ask, and there is no key",
            "write a long random text into a file and give it as --api-key-file",
        )
    limits, below = Limits(**caps), thresholds(skip_below)
    hosts = frozenset([*LOCAL, host.lower(), *map(str.lower, allowed)]) if key is None or allowed else None
    if trace is not None:
        with file_guard(trace):
            trace.open("a").close()
    settings = Settings(
        name=name or model.resolve().name,
        key=key,
        hosts=hosts,
        limits=limits,
        skip_below=below,
        skip_sure=skip_sure,
        expert_process=expert_process,
        # Ray's own processes speak with clients.
        engine_process=False if many is not None else engine_process,
        example=example_picture(),
        index=index,
        trace=trace,
    )
    log_to_standard_error()
    if many is not None:
        run(deployed(Source(model, device, trust_remote_code), settings, *many), host, port, limits)
        return
    loaded = load(model, device=device, trust_remote_code=trust_remote_code)
    # uvicorn obeys both while it runs, and afterwards raises what came for whoever handled it before.
    for asked_to_end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked_to_end, signal.SIG_IGN)
    server = Server(loaded, settings)
    listening = uvicorn.Server(uvicorn_config(application(server), host, port, limits))
    server.on_break = partial(setattr, listening, "should_exit", True)
    listening.run()
    if server.broken:  # so that whatever watches over this process starts it again
        raise AstreaError(
            "the model's process has ended by itself, and the server with it",
            "its log, above, says why; where it says nothing the system may have ended it for want of memory",
        )


def uvicorn_config(app: Any, host: str, port: int, limits: Limits) -> uvicorn.Config:
    """How uvicorn serves: it says nothing of itself or of requests, bounds headers, and on SIGTERM finishes what was
    accepted, for which it waits as long as a request may take."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        http="h11",
        ws="none",
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(limits.seconds) + 5,
        backlog=256,
    )


def read_replicas(words: str) -> tuple[int, int]:
    """The least and the most replicas of ``N`` or ``LEAST:MOST``.

    Raises:
        AstreaError: it is neither, or more than the most.
    """
    least, colon, most = words.partition(":")
    try:
        found = int(least), int(most if colon else least)
    except ValueError:
        found = 0, 0
    if not 1 <= found[0] <= found[1]:
        raise AstreaError(
            f"--replicas {words}: this is not a number of replicas",
            "write --replicas 2, or --replicas 1:8 for as many as are needed",
        )
    return found


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(path: Path) -> str:
    """The key in a file's first line.

    Raises:
        AstreaError: the file cannot be read, or the key is too short to be one.
    """
    with file_guard(path):
        text = path.read_text(encoding="utf-8")
    key = text.split("\n")[0].strip()
    if len(key) < SHORTEST_KEY or not key.isascii():
        raise AstreaError(
            f"{path}: a key has at least {SHORTEST_KEY} letters, digits or marks of ASCII",
            'make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    return key
