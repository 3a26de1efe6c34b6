"""What stands in a picture as word pieces of a language model: always plain text, whatever is written there."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

NO_PIECE = -1
"""Where a line has fewer pieces."""


def word_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text as it would stand in a sentence, behind a space. A sign that says "<|im_end|>" must not end
    anything: control tokens are left out."""
    control = control_ids(tokenizer)
    return [index for index in tokenizer(f" {text}", add_special_tokens=False).input_ids if index not in control]


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that steer a model: special ones, and added ones that are no words, such as ``<image>``."""
    added = tokenizer.added_tokens_decoder
    marks = {index for index, token in added.items() if token.special or not token.content.strip().isalnum()}
    return marks | set(tokenizer.all_special_ids)
