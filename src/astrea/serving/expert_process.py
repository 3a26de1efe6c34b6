"""Experts in a process of their own.

Threads of one process share one interpreter lock, so that Python's part in the language model waits for Python's part
in the experts and the other way round. On the processor, where nothing else need be shared, experts get a process.

Letters: N pictures, S side of the square picture.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection

import torch
from safetensors.torch import load, save
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.experts.bank import ExpertBank
from astrea.experts.feature_tensors import feature_tensors
from astrea.experts.protocol import ExpertFeatures
from astrea.serving.features import Experts
from astrea.serving.logs import log, log_failure, log_to_standard_error

PIXELS, ORIGINAL = "pixels", "original."


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
    """A bank of experts that computes in another process. It has a copy of their weights; nothing that clients send is
    ever unpickled there or here: pictures go and features come as safetensors.

    Args:
        experts: a bank on the processor. threads: how many the other process computes with.

    Raises:
        AstreaError: the experts cannot be sent to another process, such as those of a class that can't be imported.
    """

    def __init__(self, experts: Experts, threads: int) -> None:
        self.names = tuple(experts.names)
        self._experts, self._threads = experts, threads
        self._lock = threading.Lock()
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
        wanted, pictures = list(self.names if names is None else names), packed_pictures(pixels_N3SS, originals)
        with self._lock:
            try:
                return self._ask(pictures, wanted)
            except (EOFError, OSError):
                self._end()
                self._begin()
            try:
                return self._ask(pictures, wanted)
            except (EOFError, OSError) as error:
                raise ExpertsElsewhere("the experts' process has ended") from error

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _begin(self) -> None:
        try:
            # Weights within the pickle: through shared memory, a container's 64 MB of it would be too little.
            sent = pickle.dumps(self._experts)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise AstreaError(
                f"the experts cannot be sent to another process: {error}", "let them compute in the server's own"
            ) from error
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=look_when_asked, args=(theirs, self._threads), name="astrea-experts", daemon=True
        )
        self._process.start()
        theirs.close()
        self._ours.send_bytes(sent)

    def _end(self) -> None:
        self._ours.close()
        self._process.kill()
        self._process.join()

    def _ask(self, pictures: bytes, names: list[str]) -> dict[str, ExpertFeatures]:
        self._ours.send_bytes(json.dumps(names).encode())
        self._ours.send_bytes(pictures)
        failure = json.loads(self._ours.recv_bytes())
        if failure is None:
            return unpacked(load(self._ours.recv_bytes()), names)
        if failure["hint"] is not None:
            raise AstreaError(failure["message"], failure["hint"])
        raise ExpertsElsewhere(failure["message"])


def packed_pictures(pixels_N3SS: Tensor, originals: Sequence[Tensor] | None) -> bytes:
    """Pictures as a safetensors file: the squares, and each as it is, if it is given."""
    whole = {f"{ORIGINAL}{number}": one.contiguous() for number, one in enumerate(originals or ())}
    return save({PIXELS: pixels_N3SS.contiguous(), **whole})


def unpacked_pictures(tensors: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor] | None]:
    """The pictures in a file of `packed_pictures`."""
    return tensors[PIXELS], [tensors[f"{ORIGINAL}{number}"] for number in range(len(tensors) - 1)] or None


def packed(features: Mapping[str, ExpertFeatures]) -> bytes:
    """Features of experts as a safetensors file."""
    return save({f"{part}.{name}": t for name, one in features.items() for part, t in feature_tensors(one).items()})


def unpacked(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, ExpertFeatures]:
    """The features in a file of `packed`."""
    found: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        found[name][part] = tensor
    return {name: ExpertFeatures(**parts) for name, parts in found.items()}


def look_when_asked(theirs: Connection, threads: int) -> None:
    """What the other process does: it takes the experts, then looks at pictures until nobody asks any more."""
    # Ctrl-C is for the server, which ends this one when it has finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_standard_error()
    torch.set_num_threads(threads)
    try:
        experts = pickle.loads(theirs.recv_bytes())
        with torch.inference_mode():
            while True:
                names = json.loads(theirs.recv_bytes())
                pixels, originals = unpacked_pictures(load(theirs.recv_bytes()))
                answer(theirs, partial(experts, pixels, names, originals))
    except (EOFError, OSError):
        return


def answer(theirs: Connection, look: Callable[[], Mapping[str, ExpertFeatures]]) -> None:
    """Send what experts give; or why they do not, and a hint if it is an error for people."""
    try:
        found = packed(look())
    except AstreaError as error:
        theirs.send_bytes(json.dumps({"message": error.message, "hint": error.hint}).encode())
    except Exception as error:  # whatever it is, only this call failed; its words may quote what a request held
        log_failure(error)
        theirs.send_bytes(json.dumps({"message": type(error).__name__, "hint": None}).encode())
    else:
        theirs.send_bytes(b"null")
        theirs.send_bytes(found)
