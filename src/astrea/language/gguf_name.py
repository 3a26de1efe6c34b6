"""Which values of ``llm.checkpoint`` name a GGUF file; apart from its reading, which takes torch and transformers."""

from __future__ import annotations

PACKAGE = "package:"
"""What stands before the name of an installed package that carries a GGUF file."""

ENDING = ".gguf"


def names_gguf(checkpoint: str) -> bool:
    """Whether a checkpoint is a GGUF file: by its ending, or in an installed package."""
    return checkpoint.startswith(PACKAGE) or checkpoint.endswith(ENDING)
