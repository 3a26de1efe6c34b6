"""Frozen experts in two processes, their weights in memory once: both map the same file.

The experts' structure goes through a pickle that is made and read by this program alone. Their weights are written into
a safetensors file, and what was in memory is replaced by the file's map: its pages are the system's cache, which all
processes share. Not through shared memory: containers often have no more than 64 MB of it.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.common.memory import give_back
from astrea.common.paths import file_guard

Held = dict[str, list[Tensor]]
"""Name -> the tensors, parameters or buffers, that hold the same numbers in the same memory."""

CAPTURING, INSTALLED = "transformers.utils.output_capturing", "_output_capturing_hooks_installed"
"""Where the hooks come from that collect hidden states, and how transformers marks a model that has them."""


def pack(experts: Any, file: Path) -> bytes:
    """Experts for `unpack`, which another process may call. From then on theirs is the memory of the file.

    Args:
        experts: not learning. What is no weight on the processor (of other devices, of types that the file cannot hold)
            goes into the pickle, as a copy. file: is written.

    Raises:
        AstreaError: the file cannot be written, or the experts cannot be pickled, such as those of a class that can't
            be imported.
    """
    held = weights_of(experts)
    places = {id(tensor): name for name, tensors in held.items() for tensor in tensors}
    buffer = io.BytesIO()
    try:
        with _without_captures(experts):
            _Pickler(buffer, places).dump(experts)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise AstreaError(
            f"the experts cannot be sent to another process: {error}", "let them compute in the server's own"
        ) from error
    with file_guard(file):
        save_file(_without_common_memory({name: tensors[0].detach() for name, tensors in held.items()}), file)
        mapped = load_file(file)
    for name, tensors in held.items():
        for tensor in tensors:
            tensor.data = mapped[name]
    give_back()
    return buffer.getvalue()


def unpack(sent: bytes, file: Path) -> Any:
    """The experts that `pack` was given; their weights are the map of the file."""
    return _Unpickler(io.BytesIO(sent), load_file(file)).load()


@contextmanager
def _without_captures(experts: Any) -> Iterator[None]:
    """While open, a model has none of the hooks that transformers leaves behind once hidden states or attentions were
    asked for: they are functions within a function, which no pickle can name, and are made again when they are needed.
    """
    hooks: list[tuple[nn.Module, int, Any]] = []
    marked: list[nn.Module] = []
    for module in experts.modules() if isinstance(experts, nn.Module) else ():
        for number, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", "") == CAPTURING:
                hooks.append((module, number, module._forward_hooks.pop(number)))
        if module.__dict__.pop(INSTALLED, False):
            marked.append(module)
    try:
        yield
    finally:
        for module, number, hook in hooks:
            module._forward_hooks[number] = hook
        for module in marked:
            setattr(module, INSTALLED, True)


def weights_of(experts: Any) -> Held:
    """The weights that a file can hold; nothing of what is no module."""
    held: Held = {}
    names: dict[tuple[Any, ...], str] = {}
    tensors = [*experts.named_parameters(), *experts.named_buffers()] if isinstance(experts, nn.Module) else []
    for name, tensor in tensors:
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.device.type != "cpu" or not tensor.is_contiguous():
            continue
        if tensor.is_complex() or tensor.is_quantized:
            continue
        memory = (tensor.data_ptr(), tensor.shape, tensor.dtype)
        held.setdefault(names.setdefault(memory, name), []).append(tensor)
    return held


def _without_common_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, with copies of those that lie in one storage with others or are a part of one: a file refuses them."""
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())

    def alone(tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        return storages[storage.data_ptr()] == 1 and storage.nbytes() == tensor.nbytes

    return {name: tensor if alone(tensor) else tensor.clone() for name, tensor in tensors.items()}


class _Pickler(pickle.Pickler):
    """Writes the names of some tensors in their place; places: the names, by the tensors' ids."""

    def __init__(self, file: io.BytesIO, places: dict[int, str]) -> None:
        super().__init__(file)
        self._places = places

    def persistent_id(self, found: Any) -> tuple[str, bool] | None:
        name = self._places.get(id(found))
        return None if name is None else (name, isinstance(found, nn.Parameter))


class _Unpickler(pickle.Unpickler):
    """Puts tensors in the place of their names."""

    def __init__(self, file: io.BytesIO, tensors: dict[str, Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors
        self._made: dict[tuple[str, bool], Tensor] = {}

    def persistent_load(self, place: tuple[str, bool]) -> Tensor:
        if place not in self._made:  # asked again for a tensor that stands in several places
            name, is_parameter = place
            tensor = self._tensors[name]
            self._made[place] = nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
        return self._made[place]
