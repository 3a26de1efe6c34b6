"""The words of paraphrases and refusals for a model of the embedded world, and spellings that mean the same."""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, normalizers
from transformers import PreTrainedTokenizerBase

from astrea.language.new_words import grow_words, grown_tokenizer, with_backend
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.scenes.paraphrases import paraphrase_texts
from astrea.world.scenes.unanswerable import CANNOT_TELL, NONE

SPELLINGS: dict[str, str] = {
    "color": "colour",
    "colors": "colours",
    "colored": "coloured",
    "gray": "grey",
    "aeroplane": "airplane",
    "aeroplanes": "airplanes",
    "plane": "airplane",
    "planes": "airplanes",
    "phone": "telephone",
    "phones": "telephones",
    "mug": "cup",
    "mugs": "cups",
    "photo": "picture",
    "photograph": "picture",
    "what's": "what is",
    "where's": "where is",
    "there's": "there is",
    "yin-yang": "yinyang",
    "yin yang": "yinyang",
}
"""Other spellings and names, in small letters, and what the world calls the same thing."""


def learn_wordings(
    model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """Give a model the words that it needs for paraphrases and refusals; returns the tokenizer that knows them.

    Only for tokenizers of whole words (see `astrea.language.new_words`); others come back as they are.
    """
    known = len(tokenizer)
    grown, pieces = grown_tokenizer(tokenizer, [*paraphrase_texts(), NONE, CANNOT_TELL])
    grow_words(model, known, pieces)
    return respelled(grown) if pieces else grown


def respelled(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same tokenizer, which reads `SPELLINGS` as what they stand for."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    rules = [normalizers.Replace(Regex(rf"\b{re.escape(word)}\b"), meant) for word, meant in SPELLINGS.items()]
    backend.normalizer = normalizers.Sequence([backend.normalizer, *rules])
    return with_backend(tokenizer, backend)
