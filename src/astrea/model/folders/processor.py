"""The processor of a model folder, put together from its files one by one; nothing else in the folder is looked at."""

from __future__ import annotations

from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import (
    AGAIN,
    MAX_JSON_BYTES,
    MAX_TEMPLATE_BYTES,
    TEMPLATE,
    foreign,
    of_file,
    read_json,
    read_text,
)
from astrea.common.quiet import quiet
from astrea.model.folders.tokenizer import read_tokenizer
from astrea.model.image_processing import AstreaImageProcessor
from astrea.model.processing import AstreaProcessor

PICTURES = "image_processor"
KNOWN = ("processor_class", "num_visual_tokens", "max_length", PICTURES)
QUESTION = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is it red?"}]}


def read_processor(folder: Path) -> AstreaProcessor:
    """The processor of a model folder.

    Raises:
        AstreaError: a file is missing, unreadable, not Astrea's, or asks for more than it may; names the file.
    """
    path = folder / "processor_config.json"
    described = read_json(path, MAX_JSON_BYTES)
    pictures = described.get(PICTURES)
    # Another class, or an audio tokenizer, would be loaded from wherever the file says.
    if described.get("processor_class") != AstreaProcessor.__name__ or described.keys() - {*KNOWN}:
        raise AstreaError(f"{path} does not describe an AstreaProcessor", AGAIN)
    if not isinstance(pictures, dict) or pictures.get("image_processor_type") != AstreaImageProcessor.__name__:
        raise AstreaError(f"{path} does not describe an AstreaImageProcessor", AGAIN)
    template = read_text(folder / TEMPLATE, MAX_TEMPLATE_BYTES)
    with quiet():
        tokenizer = read_tokenizer(folder)
        with of_file(path), foreign(f"{path} describes no processor"):
            sizes = {name: described[name] for name in ("num_visual_tokens", "max_length") if name in described}
            processor = AstreaProcessor(
                AstreaImageProcessor(pictures.get("image_size", 64), pictures.get("originals", False)),
                tokenizer,
                **sizes,
                chat_template=template,
            )
    with of_file(folder / TEMPLATE):
        # One question, so that a template that can ask nothing says so before the weights are read.
        processor.apply_chat_template([QUESTION], add_generation_prompt=True)
    return processor
