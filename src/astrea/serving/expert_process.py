"""Experts in a process of their own.

Threads of one process share one interpreter lock, so that Python's part in the language model waits for Python's part
in the experts and the other way round. On the processor, where nothing else need be shared, experts get a process.

Letters: N pictures, S side of the square picture.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.paths import file_guard
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures, Reading
from astrea.serving.expert_messages import (
    Request,
    packed,
    packed_pictures,
    packed_readings,
    read_request,
    unpacked,
    unpacked_pictures,
    unpacked_readings,
)
from astrea.serving.features import Experts
from astrea.serving.logs import log, log_failure, log_to_standard_error
from astrea.serving.shared_weights import pack, unpack

READY = b"ready"


def placed(experts: ExpertBank, apart: bool | None) -> Experts:
    """Experts where a server has them compute: in a process of their own, or as they are.

    Args:
        apart: None = in a process of their own where they and the language model share a processor of several cores,
            half of which each gets, and where they can be sent there.

    Raises:
        AstreaError: they are to go to another process and cannot.
    """
    threads = torch.get_num_threads()
    can = threads > 1 and all(part.device.type == "cpu" for part in experts.parameters())
    wanted = can if apart is None else apart
    if not wanted:
        return experts
    try:
        sent = ExpertProcess(experts, max(1, threads // 2))
    except AstreaError as error:
        if apart:
            raise
        log("experts stay in the server's process", why=error.message)
        return experts
    torch.set_num_threads(max(1, threads - threads // 2))
    return sent


class ExpertsElsewhere(RuntimeError):
    """What failed in the other process, or that it has ended."""


class ExpertProcess:
    """A bank of experts that computes in another process. Both map the same file of weights, so that these are in
    memory once. Nothing that clients send is ever unpickled there or here: pictures go and what experts give comes as
    safetensors.

    Args:
        experts: a bank on the processor that does not learn. threads: how many the other process computes with.

    Raises:
        AstreaError: the experts cannot be sent to another process, such as those of a class that can't be imported.
    """

    def __init__(self, experts: Experts, threads: int) -> None:
        self.names = tuple(experts.names)
        self._experts, self._threads = experts, threads
        self._lock = threading.Lock()
        self._closed = False
        self._begin()

    def takes_original(self, name: str) -> bool:
        """As `ExpertBank`."""
        return self._experts.takes_original(name)

    def __call__(
        self, pixels_N3SS: Tensor, names: Sequence[str] | None = None, originals: Sequence[Tensor] | None = None
    ) -> dict[str, ExpertFeatures]:
        """As `ExpertBank`. From any thread; one call at a time. A process that has died is replaced once.

        Raises:
            AstreaError: an expert refuses. ExpertsElsewhere: it fails, or its process ends twice.
        """
        wanted = list(self.names if names is None else names)
        return unpacked(self._asked(Request(wanted), packed_pictures(pixels_N3SS, originals)), wanted)

    def readings(
        self,
        pixels_N3SS: Tensor,
        originals: Sequence[Tensor] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Reading]]:
        """As `ExpertBank`, otherwise as a call."""
        request = Request(None, None if sizes is None else list(sizes))
        return unpacked_readings(self._asked(request, packed_pictures(pixels_N3SS, originals)))

    def close(self) -> None:
        """End the process, for good."""
        with self._lock:
            self._closed = True
            self._end()

    def _begin(self) -> None:
        with file_guard("the folder for temporary files"):
            self._folder = tempfile.TemporaryDirectory(prefix="astrea-experts-", ignore_cleanup_errors=True)
        # Until the other process has opened the file; then it needs no name any more, and none is left, whatever ends
        # the two.
        self._waits = True
        file = Path(self._folder.name) / "weights.safetensors"
        try:
            sent = pack(self._experts, file)
        except AstreaError:
            self._folder.cleanup()
            raise
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=look_when_asked, args=(theirs, self._threads, file), name="astrea-experts", daemon=True
        )
        self._process.start()
        theirs.close()
        self._ours.send_bytes(sent)

    def _end(self) -> None:
        self._ours.close()
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    def _asked(self, request: Request, pictures: bytes) -> bytes:
        with self._lock:
            if self._closed:
                raise ExpertsElsewhere("the experts' process has been closed")
            try:
                return self._ask(request, pictures)
            except (EOFError, OSError):
                self._end()
            try:
                self._begin()
            except AstreaError as error:  # no fault of this request's
                raise ExpertsElsewhere("the experts' process cannot be started again") from error
            try:
                return self._ask(request, pictures)
            except (EOFError, OSError) as error:
                raise ExpertsElsewhere("the experts' process has ended") from error

    def _ask(self, request: Request, pictures: bytes) -> bytes:
        if self._waits:
            self._ours.recv_bytes()
            self._folder.cleanup()
            self._waits = False
        self._ours.send_bytes(request.written())
        self._ours.send_bytes(pictures)
        failure = json.loads(self._ours.recv_bytes())
        if failure is None:
            return self._ours.recv_bytes()
        if failure["hint"] is not None:
            raise AstreaError(failure["message"], failure["hint"])
        raise ExpertsElsewhere(failure["message"])


def look_when_asked(theirs: Connection, threads: int, weights: Path) -> None:
    """What the other process does: it takes the experts, then looks at pictures until nobody asks any more.

    Args:
        weights: the experts' file.
    """
    # Ctrl-C is for the server, which ends this one when it has finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_standard_error()
    torch.set_num_threads(threads)
    try:
        experts = unpack(theirs.recv_bytes(), weights)
        theirs.send_bytes(READY)
        with torch.inference_mode():
            while True:
                request = read_request(theirs.recv_bytes())
                pictures = theirs.recv_bytes()
                answer(theirs, partial(found_by, experts, request, pictures))
    except (EOFError, OSError):
        return


def found_by(experts: Any, request: Request, pictures: bytes) -> bytes:
    """What experts give for a request, as the message that is sent."""
    pixels, originals = unpacked_pictures(pictures)
    if request.names is None:
        return packed_readings(experts.readings(pixels, originals, request.sizes))
    return packed(experts(pixels, request.names, originals))


def answer(theirs: Connection, look: Callable[[], bytes]) -> None:
    """Send what experts give; or why they do not, and a hint if it is an error for people."""
    try:
        found = look()
    except AstreaError as error:
        theirs.send_bytes(json.dumps({"message": error.message, "hint": error.hint}).encode())
    except Exception as error:  # whatever it is, only this call failed; its words may quote what a request held
        log_failure(error)
        theirs.send_bytes(json.dumps({"message": type(error).__name__, "hint": None}).encode())
    else:
        theirs.send_bytes(b"null")
        theirs.send_bytes(found)
