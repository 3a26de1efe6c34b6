"""The tiny recipe's language model: a small Llama with a word-level tokenizer of the embedded world."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from astrea.data.packing import CAPTION_PROMPT, NOTE_PROMPT
from astrea.experts.protocol import Expert
from astrea.language.attention import WARMED_UP
from astrea.language.defaults import WORD_MATCH
from astrea.language.tokenizer import build_tokenizer
from astrea.recipes.recipe import LanguageModel
from astrea.world.experts.compact import COMPACT
from astrea.world.scenes.questions import text_vocabulary, tokens

EMBEDDING_STD = 0.06


class TinyLanguage:
    """`astrea.language.builtin.BuiltInLanguage`."""

    def tokenizer(self, experts: Iterable[type[Expert] | Expert]) -> PreTrainedTokenizerFast:
        """The tiny tokenizer, with words for the labels of these experts."""
        # The compact experts' words always come first, so that the shipped language model's vocabulary keeps its order.
        others = [expert for expert in experts if expert not in COMPACT.values()]
        return tiny_tokenizer([*COMPACT.values(), *others])

    def model(self, size: LanguageModel) -> LlamaForCausalLM:
        """A language model of this size with fresh weights."""
        return tiny_language_model(size, tiny_tokenizer())


def tiny_tokenizer(experts: Iterable[type[Expert] | Expert] = tuple(COMPACT.values())) -> PreTrainedTokenizerFast:
    """Words of questions, answers and captions, and of every channel name of the experts.

    The words of experts that are not built in have the last ids: a pretrained language model grows by them.
    """
    experts = list(experts)
    labels = [label for expert in experts if expert in COMPACT.values() for label in expert.labels if label]
    others = [label for expert in experts if expert not in COMPACT.values() for label in expert.labels if label]
    later = [word for label in others for word in tokens(label)]
    words = text_vocabulary()
    # "suns" is "sun" + "##s": one word to learn for one and for many, as any subword vocabulary has it.
    plurals = {f"{word}s" for word in words if len(word) > 1}
    words = [word for word in words if word not in plurals]
    return build_tokenizer([*words, *tokens(CAPTION_PROMPT), *tokens(NOTE_PROMPT), *labels], later)


def tiny_language_model(size: LanguageModel, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama of the given size, input and output embeddings tied."""
    config = LlamaConfig(  # type: ignore[call-arg]
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Plain attention is twice as fast as SDPA at this size on a processor.
        attn_implementation="eager",
    )
    # What it is warmed up with, for whoever takes it for a checkpoint.
    setattr(config, WARMED_UP, WORD_MATCH)
    model = LlamaForCausalLM(config)
    # Larger than the usual 0.02: at this width the words would drown in the first layers' own noise.
    table: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    torch.nn.init.normal_(table, std=EMBEDDING_STD)
    numbers_on_lines(model, tokenizer)
    attend_to_alike(model)
    return model


@torch.no_grad()
def numbers_on_lines(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start the words that count or measure (``0 1 2 ..``, ``x0 x1 ..``) in order on a line, one line per measure.

    A pretrained language model knows that 7 lies between 6 and 8. Without it, "left of" would have to be learned for
    every pair of bins; on a line it is a difference.
    """
    lines: dict[str, list[tuple[int, int]]] = {}
    for word, index in tokenizer.get_vocab().items():
        found = re.fullmatch(r"([a-z]*)(\d+)", word)
        if found:
            lines.setdefault(found[1], []).append((int(found[2]), index))
    table: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    for _, line in sorted(lines.items()):
        middle, along = torch.randn(2, table.shape[1]) * EMBEDDING_STD
        most = max(number for number, _ in line)
        for number, index in line:
            table[index] = middle + (2 * number / max(1, most) - 1) * along + 0.2 * table[index]


@torch.no_grad()
def attend_to_alike(model: LlamaForCausalLM, std: float = 0.02) -> None:
    """Start every head with equal query and key maps, so that attention begins as a similarity kernel.

    All visual tokens stand at one position, so that two tokens which share a coordinate word attend to each other from
    the first step on; binding a name to a colour by place is then a thing to sharpen instead of one to discover.
    """
    for layer in model.model.layers:
        attention = layer.self_attn
        torch.nn.init.normal_(attention.q_proj.weight, std=std)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
