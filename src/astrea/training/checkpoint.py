"""Checkpoints that survive a kill at any moment, a full disk and a flipped byte.

A checkpoint is a folder ``step-00000123`` of safetensors files, ``state.json`` and a ``manifest.json`` with the size
and sha256 of each. It is written under a temporary name, flushed to the disk, and only then renamed; older ones are
removed last. One process writes into a folder at a time. Nothing is ever unpickled.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.paths import file_guard, is_folder
from astrea.training.fsdp import full_tensor, shard_like

Warn = Callable[[str], None]
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_STATE_BYTES = 64 << 20

# ".old-" is a checkpoint that is just being replaced by one of the same step; it still counts until that is in place.
_FOLDER = re.compile(r"step-(\d{8,18})(\.old-[0-9a-f]{32})?")
_STALE = re.compile(r"(?:step-\d{8,18}|latest|[^/]+\.json)\.tmp-[0-9a-f]{32}")
_FILE = re.compile(r"state\.json|[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, verified; ``tensors[group][name]`` are on the CPU."""

    path: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    config_hash: str
    world_size: int


class _Corrupt(Exception):
    """Why a checkpoint cannot be trusted, naming the file."""


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    config_hash: str,
    keep: int = 2,
) -> Path:
    """Writes ``folder/step-XXXXXXXX`` so that it is there whole or not at all, then removes older ones.

    Args:
        folder: the run's checkpoint folder, made when missing.
        step: the optimizer step; a checkpoint of that step is replaced.
        tensors: named tensors by group, each group its own file; tied ones are written twice.
        state: numbers, text, lists, mappings with text keys. NaN and infinity survive, tuples become lists.
        config_hash: identifies the configuration; ``load_checkpoint`` compares it.
        keep: how many to keep, counting back from this one; later steps are left alone.

    Raises:
        AstreaError: no space, no permission, a read-only disk; earlier checkpoints are as they were.
        TypeError, ValueError: a group's name or a value in ``state`` that cannot be written.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step must be >= 0 and keep >= 1, got {step} and {keep}")
    if not all(_FILE.fullmatch(f"{group}.safetensors") for group in tensors):
        raise ValueError(f"not all of these are group names: {list(tensors)}")
    _check_keys(state, "state")
    text = json.dumps(dict(state)).encode()
    if len(text) > MAX_STATE_BYTES:
        raise ValueError(f"state is {len(text)} bytes of JSON, more than {MAX_STATE_BYTES}; put arrays into tensors")
    folder, final = Path(folder), Path(folder) / f"step-{step:08d}"
    partial = _temporary(final)
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
            _write(partial / "state.json", text)
            for group, named in tensors.items():
                _write_tensors(partial / f"{group}.safetensors", named)
            files = {p.name: {"size": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(partial.iterdir())}
            spread = torch.distributed.is_available() and torch.distributed.is_initialized()
            world = torch.distributed.get_world_size() if spread else 1
            head = {"format": FORMAT_VERSION, "step": step, "config_hash": config_hash, "world_size": world}
            manifest = {**head, "files": files}
            _write(partial / "manifest.json", json.dumps({**manifest, "seal": _seal(manifest)}, indent=1).encode())
            _sync(partial)
            if final.exists():
                final.rename(folder / f"{final.name}.old-{uuid.uuid4().hex}")
            partial.rename(final)
            _sync(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # is there no more after the rename
        _replace(folder / "latest", f"{final.name}\n".encode())
    _prune(folder, step, keep)
    return final


def load_checkpoint(folder: Path, *, config_hash: str | None = None, on_warning: Warn) -> Checkpoint | None:
    """The newest checkpoint whose every byte is as written, or None when the folder holds none at all.

    Args:
        folder: the run's checkpoint folder.
        config_hash: when given, the configuration that the checkpoint must have been written with.
        on_warning: called for each corrupt checkpoint that is passed over, with the file and the reason.

    Raises:
        AstreaError: there are checkpoints and none is valid, or the newest valid one is of another configuration.
    """
    folder = Path(folder)
    with file_guard(folder):
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    found = [(int(m[1]), m[2] is None, folder / m[0]) for m in map(_FOLDER.fullmatch, names) if m]
    for step, _, path in sorted(found, reverse=True):
        try:
            checkpoint = _load(path, step)
        except _Corrupt as reason:
            on_warning(f"checkpoint {path} is corrupt and passed over: {reason}")
            continue
        if config_hash is not None and checkpoint.config_hash != config_hash:
            what = f"checkpoint {path} has configuration {checkpoint.config_hash!r}, this run {config_hash!r}"
            raise AstreaError(what, "Resume with the recipe that wrote it, or give this run a new output folder.")
        return checkpoint
    if found:
        what = f"{folder}: none of its {len(found)} checkpoints is valid"
        raise AstreaError(what, "Restore one from a backup, or remove them to start again from step 0.")
    return None


def _load(path: Path, step: int) -> Checkpoint:
    manifest = _read_json(path / "manifest.json", MAX_MANIFEST_BYTES)
    if manifest.get("format") != FORMAT_VERSION:
        raise _Corrupt(f"manifest.json: format {manifest.get('format')!r:.40}, this version reads {FORMAT_VERSION}")
    if manifest.pop("seal", None) != _seal(manifest):
        raise _Corrupt("manifest.json: its sha256 is not the one written")
    files, hashed, world = manifest.get("files"), manifest.get("config_hash"), manifest.get("world_size")
    if manifest.get("step") != step or not isinstance(hashed, str) or type(world) is not int or world < 1:
        raise _Corrupt("manifest.json: step, config_hash or world_size is wrong")
    if not isinstance(files, dict) or "state.json" not in files:
        raise _Corrupt("manifest.json: it lists no state.json")
    for name, entry in files.items():
        if not _FILE.fullmatch(name) or not isinstance(entry, dict):
            raise _Corrupt(f"manifest.json: {name!r:.80} is not a file of a checkpoint, or its entry is wrong")
        _verify(path / name, entry.get("size"), entry.get("sha256"))
    state = _read_json(path / "state.json", MAX_STATE_BYTES)
    tensors = {}
    for name in sorted(files.keys() - {"state.json"}):
        with _reading(path / name):
            # Cloned, for the loaded tensors are views of a map of the file, which a later save may remove.
            tensors[name.removesuffix(".safetensors")] = {k: v.clone() for k, v in load_file(path / name).items()}
    return Checkpoint(path, step, tensors, state, hashed, world)


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _verify(path: Path, size: Any, digest: Any) -> None:
    with _reading(path):
        if (actual := path.lstat().st_size) != size:
            raise _Corrupt(f"{path.name}: {actual} bytes where {size!r:.40} were written")
        if sha256_file(path) != digest:
            raise _Corrupt(f"{path.name}: its sha256 is not the one written")


def _read_json(path: Path, cap: int) -> dict[str, Any]:
    with _reading(path):
        if path.lstat().st_size > cap:
            raise _Corrupt(f"{path.name}: more than {cap} bytes")
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise _Corrupt(f"{path.name}: not a JSON mapping")
        return data


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # a link could lead anywhere, a pipe would block
            raise _Corrupt(f"{path.name}: not a plain file")
        yield
    except OSError as error:
        raise _Corrupt(f"{path.name}: {error.strerror}") from None
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _Corrupt(f"{path.name}: cannot be read ({type(error).__name__}: {error!s:.200})") from None


def _write_tensors(path: Path, named: Mapping[str, Tensor]) -> None:
    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in named.items():
        plain = tensor.detach().to("cpu").contiguous()
        storage = plain.untyped_storage()
        # safetensors refuses tensors that share memory (tied weights, views), so those are copied.
        separate[name] = plain.clone() if storage.data_ptr() in seen or storage.nbytes() != plain.nbytes else plain
        seen.add(storage.data_ptr())
    save_file(separate, path)
    shutil.copymode(path.with_name("state.json"), path)  # safetensors makes the file private to its owner
    _sync(path)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    if is_folder(path) and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder(path) else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")


def _replace(path: Path, data: bytes) -> None:
    partial = _temporary(path)
    try:
        _write(partial, data)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Best effort: what cannot be removed now is tried again after the next save."""
    with suppress(OSError):
        names = [entry.name for entry in folder.iterdir()]
        steps = {int(match[1]): name for name in names if (match := _FOLDER.fullmatch(name)) and match[2] is None}
        kept = {steps[s] for s in sorted((s for s in steps if s <= step), reverse=True)[:keep]}
        for name in names:
            match = _FOLDER.fullmatch(name)
            if match and name not in kept and (match[2] or int(match[1]) <= step):
                # Renamed first, so that a kill in mid-removal leaves no half of a checkpoint.
                gone = _temporary(folder / f"step-{match[1]}")
                (folder / name).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
            elif _STALE.fullmatch(name):
                shutil.rmtree(folder / name, ignore_errors=True)
                (folder / name).unlink(missing_ok=True)


def _check_keys(value: Any, where: str) -> None:
    """JSON would silently turn keys that are numbers into text."""
    if isinstance(value, list | tuple):
        value = {str(i): item for i, item in enumerate(value)}
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if not isinstance(key, str):
            raise TypeError(f"{where}: the key {key!r} is not text")
        _check_keys(item, f"{where}.{key}")


def flatten_optimizer(optimizer: torch.optim.AdamW) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """AdamW's state as tensors and JSON-able values, for ``save_checkpoint`` and ``restore_optimizer``. What is sharded
    is gathered, so then every rank must call."""
    full = optimizer.state_dict()
    tensors = {f"{i}.{name}": full_tensor(value) for i, slots in full["state"].items() for name, value in slots.items()}
    groups = [{k: v.item() if isinstance(v, Tensor) else v for k, v in g.items()} for g in full["param_groups"]]
    return tensors, {"groups": groups}


def restore_optimizer(optimizer: torch.optim.AdamW, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Puts back what ``flatten_optimizer`` gave, bit-equal; AstreaError when malformed or of other parameters."""
    hint = "Resume with the recipe and the trainable parts that wrote the checkpoint."
    current_groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        groups = [dict(group) for group in state["groups"]]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in current_groups]:
            raise AstreaError("the optimizer in the checkpoint has other parameter groups than this run's", hint)
        for group, current in zip(groups, current_groups, strict=True):  # JSON knows neither tuples nor tensors
            group |= {k: tuple(group[k]) for k, v in current.items() if isinstance(v, tuple)}
            group |= {k: torch.full_like(v, group[k]) for k, v in current.items() if isinstance(v, Tensor)}
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, slot = name.partition(".")
            parameter = parameters[int(index)]
            if value.dim() and value.shape != parameter.shape:
                raise AstreaError(f"the optimizer's {slot} of parameter {index} is {tuple(value.shape)}", hint)
            own = shard_like(value.to(parameter.device), parameter) if value.dim() else value
            slots.setdefault(int(index), {})[slot] = own.clone()
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise AstreaError(f"the optimizer state in the checkpoint cannot be read ({error!r:.200})", hint) from error


def rng_state() -> dict[str, Any]:
    """The states of Python's, numpy's global and torch's random generators (all GPUs), JSON-able."""
    version, words, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - code we call may draw from it
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, _pack(words, "<u4"), gauss],
        "numpy": [str(kind), _pack(keys, "<u4"), int(place), int(has_gauss), float(cached)],
        "torch": _pack(torch.get_rng_state(), "u1"),
        "cuda": [_pack(one, "u1") for one in cuda],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Puts back what ``rng_state`` gave (GPUs: when there are as many); raises AstreaError when it is malformed."""
    try:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(_unpack(words, "<u4").tolist()), gauss))
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, _unpack(keys, "<u4"), *rest))  # noqa: NPY002
        torch.set_rng_state(torch.from_numpy(_unpack(state["torch"], "u1")))
        cuda = [torch.from_numpy(_unpack(one, "u1")) for one in state["cuda"]]
        if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise AstreaError("the random state in the checkpoint cannot be read", "Resume an older checkpoint.") from error


def _pack(values: Any, dtype: str) -> str:
    return base64.b64encode(np.asarray(values, dtype=dtype).tobytes()).decode()


def _unpack(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype).copy()
