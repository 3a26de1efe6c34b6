"""Small random language models of true architectures, each with a small real tokenizer and a chat template in the style
of its family, saved as a checkpoint folder like any from the hub.

Another test folder may import this file by adding ``tests/language`` to its path.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SENTENCES = (
    "what colour is the cat in the picture? the cat is red.",
    "describe the picture. a red sun and a blue cow stand near the sea.",
    "how many umbrellas are there? there are two umbrellas and one dog.",
    "is the dog to the left of the tree? yes, it is. no, it is not.",
    "You are a helpful assistant. Answer in one word.\nUser: hello!\nAssistant: good day",
)

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Says nothing of its own; a new line behind every turn."""

HEADERS = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""Trims what is said, ends turns with a token that is not eos."""

TURNS = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant/user/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Knows no system role and insists on taking turns."""

THINKING = (
    "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|im_start|>user\n' + message['content'] + '<|im_end|>\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
"""A system turn of its own, and a block of thoughts before the last answer only."""

INSTRUCTIONS = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
"""No mark for the answer's beginning: a space, which belongs to the answer's first word."""

ENDED = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
"""An end token behind each turn, and another behind the conversation."""


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture with the manners of its tokenizer. template: None = the tokenizer has none."""

    config: dict[str, Any]
    template: str | None
    special: tuple[str, ...]
    kind: str = "bytes"
    bos: str | None = "<|begin|>"
    eos: str = "<|endoftext|>"
    pad: str | None = None
    room: int = 0


BASE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
CHAT = ("<|im_start|>", "<|im_end|>")
HEADS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TURN = ("<start_of_turn>", "<end_of_turn>")
GEMMA = {**BASE, "query_pre_attn_scalar": 8, "sliding_window": 6, "hidden_activation": "gelu_pytorch_tanh"}
FAMILIES: dict[str, Family] = {
    "llama": Family({**BASE, "model_type": "llama", "tie_word_embeddings": False}, HEADERS, HEADS),
    "llama_tied": Family(
        {**BASE, "model_type": "llama", "tie_word_embeddings": True},
        CHATML,
        CHAT,
        bos=None,
        pad="<|endoftext|>",
        room=7,
    ),
    "qwen3": Family(
        {**BASE, "model_type": "qwen3", "tie_word_embeddings": True},
        THINKING,
        (*CHAT, "<think>", "</think>"),
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        room=20,
    ),
    "gemma2": Family(
        {**GEMMA, "model_type": "gemma2", "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
        TURNS,
        TURN,
        kind="unigram",
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
    ),
    "gemma3": Family(
        {**GEMMA, "model_type": "gemma3_text", "layer_types": ["sliding_attention", "full_attention"]},
        TURNS,
        TURN,
        kind="unigram",
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
    ),
    "gpt2": Family(
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
        None,
        (),
        bos="<|endoftext|>",
    ),
    "mistral": Family(
        {**BASE, "model_type": "mistral", "sliding_window": 12, "tie_word_embeddings": False},
        INSTRUCTIONS,
        (),
        kind="unigram",
        bos="<s>",
        eos="</s>",
    ),
    "phi3": Family(
        {**BASE, "model_type": "phi3", "sliding_window": None, "tie_word_embeddings": False},
        ENDED,
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        bos=None,
        pad="<|endoftext|>",
    ),
}
"""Windows are shorter than the conversations of the tests, so that they matter."""


def small_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family: byte-level BPE, or Unigram with spaces as part of words."""
    manner = FAMILIES[family]
    wanted = dict.fromkeys(t for t in (manner.pad, manner.bos, manner.eos, "<|endoftext|>", *manner.special) if t)
    special = [AddedToken(token, special=True, normalized=False) for token in wanted]
    train: Callable[[], Tokenizer] = _byte_level if manner.kind == "bytes" else _unigram
    core = train()
    core.add_special_tokens(special)
    if manner.bos is not None and family != "gpt2":
        core.post_processor = processors.TemplateProcessing(
            single=f"{manner.bos} $A", special_tokens=[(manner.bos, core.token_to_id(manner.bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=manner.bos,
        eos_token=manner.eos,
        pad_token=manner.pad,
        unk_token="<unk>" if manner.kind == "unigram" else None,
        model_max_length=512,
    )
    tokenizer.chat_template = manner.template
    return tokenizer


def _byte_level() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(SENTENCES * 3, trainer)
    return core


def _unigram() -> Tokenizer:
    # Put together by hand, for the trainer gives another vocabulary every time: letters, and the shorter words whole.
    words = sorted({word for sentence in SENTENCES for word in sentence.split() if word.isalpha() and len(word) <= 4})
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "\n", "▁"]
    pieces = [("<unk>", 0.0), *((letter, -6.0) for letter in letters), *((f"▁{word}", -7.0) for word in words)]
    core = Tokenizer(models.Unigram(pieces, unk_id=0))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    return core


def small_language_model(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint of a family into ``folder`` and return it. Weights are large enough for everything to
    matter: with fresh ones all logits are nearly alike."""
    tokenizer = small_tokenizer(family)
    manner = FAMILIES[family]
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    described = {**manner.config, **ids, "vocab_size": len(tokenizer) + manner.room, "initializer_range": 0.2}
    config = AutoConfig.for_model(**described)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
