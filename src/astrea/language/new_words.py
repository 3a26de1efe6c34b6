"""New words for a language model that is trained already: old words keep their ids and rows.

Letters: V old words, D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PLURAL = "##s"
"""How the tokenizer says the s of "suns"."""


def grown_tokenizer(
    tokenizer: PreTrainedTokenizerBase, labels: Iterable[str | None]
) -> tuple[PreTrainedTokenizerBase, dict[str, list[int]]]:
    """A tokenizer that also knows the words of an expert's labels, and the pieces that each fell apart into so far.

    Only a tokenizer of whole words with letters as the fallback (`astrea.language.tokenizer`) needs it; any other comes
    back as it is. Every text of known words, their plurals among them, keeps the ids that it had. The new words come
    last, in the order of the labels.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described = {} if backend is None else json.loads(backend.to_str())
    if backend is None or described["model"]["type"] != "WordPiece":
        return tokenizer, {}
    vocabulary = described["model"]["vocab"]
    pieces: dict[str, list[int]] = {}
    for label in dict.fromkeys(label for label in labels if label):
        for word in words_of(label, backend):
            parts = tokenizer.tokenize(word)
            if falls_apart(parts) and word not in pieces:
                pieces[word] = [vocabulary[part] for part in parts]
    if not pieces:
        return tokenizer, {}
    first = len(tokenizer)
    vocabulary.update({word: first + number for number, word in enumerate(pieces)})
    grown = with_backend(tokenizer, Tokenizer.from_str(json.dumps(described)))
    return grown, pieces


def with_backend(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> PreTrainedTokenizerBase:
    """A tokenizer with the same special tokens, settings and chat template around another core."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad")},
        additional_special_tokens=list(getattr(tokenizer, "extra_special_tokens", [])),
        padding_side=tokenizer.padding_side,
        model_max_length=tokenizer.model_max_length,
    )
    made.chat_template = tokenizer.chat_template
    return made


def falls_apart(parts: list[str]) -> bool:
    """Whether a word is said in single letters, at least behind a beginning that is a word by chance (cat-a-m-a-r-a-n);
    the plural of a known word is not, and neither is a word with letters that the tokenizer does not know at all."""
    return len(parts) > 1 and parts[1:] != [PLURAL] and all(len(part) == len("##") + 1 for part in parts[1:])


def in_known_words(label: str | None, tokenizer: PreTrainedTokenizerBase, new: Mapping[str, list[int]]) -> str | None:
    """A label without its new words, if its last one, in English the noun, is known: of "Egyptian cat" the language
    model can read "cat". Any other label as it is."""
    if not label or not new:
        return label
    words = words_of(label, tokenizer.backend_tokenizer)
    if words[-1] in new or len(words[-1]) == 1:
        return label
    return " ".join(word for word in words if word not in new and len(word) > 1)


def words_of(label: str, backend: Tokenizer) -> list[str]:
    """A label's words as the tokenizer takes them, before it looks them up."""
    said = backend.normalizer.normalize_str(label) if backend.normalizer else label
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(said)]


@torch.no_grad()
def grow_words(language_model: nn.Module, known: int, pieces: dict[str, list[int]]) -> None:
    """Give new words their rows, in the table of words and in the output layer, after the first ``known`` ones.

    A new word starts as the mean of the pieces that it fell apart into: as near as one row comes to what it was before.
    The letters' rows have learned not to be said where words are; so will the new ones not be.
    """
    if not pieces:
        return
    language_model.resize_token_embeddings(  # type: ignore[operator]
        max(known + len(pieces), len(language_model.get_input_embeddings().weight)),  # type: ignore[operator]
        mean_resizing=False,
    )
    tables = {
        id(end.weight): end.weight
        for end in (language_model.get_input_embeddings(), language_model.get_output_embeddings())  # type: ignore[operator]
        if end is not None
    }
    for weight_VD in tables.values():
        rows: list[Tensor] = [weight_VD[parts].mean(0) for parts in pieces.values()]
        weight_VD[known : known + len(rows)] = torch.stack(rows)
