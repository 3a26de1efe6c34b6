"""Tokenizer files that panic, take for ever, make much of little, or name what lies outside the folder."""

from __future__ import annotations

import json
from typing import Any

from fuzz.folder_values import PAYLOAD
from fuzz.spoils import Spoil, edited, put, several, written


def pipeline(part: str, *steps: dict[str, Any]) -> Spoil:
    """Other steps in a part of tokenizer.json."""
    kind = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[part]
    return put("tokenizer.json", (part,), {"type": "Sequence", kind: list(steps)})


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


GROWING = [replace({"String": "a"}, "aa")] * 40
TOKENIZERS: dict[str, Spoil] = {
    "normalizer that doubles": pipeline("normalizer", *GROWING),
    "decoder that doubles": pipeline("decoder", *GROWING),
    "normalizer between all characters": pipeline("normalizer", replace({"Regex": ""}, "x" * 10_000)),
    "normalizer of a megabyte": pipeline("normalizer", replace({"String": "e"}, "x" * (1 << 20))),
    "normalizer prepends a megabyte": pipeline("normalizer", {"type": "Prepend", "prepend": "x" * (1 << 20)}),
    "precompiled normalizer empty": pipeline("normalizer", {"type": "Precompiled", "precompiled_charsmap": ""}),
    "precompiled normalizer short": pipeline("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "precompiled normalizer wild": pipeline(
        "normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////w" * 200}
    ),
    "precompiled normalizer cut": pipeline("normalizer", {"type": "Precompiled", "precompiled_charsmap": "BAAAAAEA"}),
    "pattern that backtracks": pipeline("pre_tokenizer", split("(a+)+$")),
    "pattern that chooses": pipeline("pre_tokenizer", split("(?:a|a)*b")),
    "pattern that looks behind": pipeline("pre_tokenizer", split(r"(\s*)*\s*\s*\s*\s*x")),
    "pattern of many stars": pipeline("pre_tokenizer", split("a*" * 12 + "b")),
    "pattern without end": pipeline("pre_tokenizer", split("((")),
    "pattern of a megabyte": pipeline("pre_tokenizer", split("a?" * 500_000)),
    "nested steps": put(
        "tokenizer.json",
        ("normalizer",),
        json.loads('{"type":"Sequence","normalizers":[' * 90 + '{"type":"NFC"}' + "]}" * 90),
    ),
    "unknown model": put("tokenizer.json", ("model",), {"type": "magic"}),
    "no model": put("tokenizer.json", ("model",), None),
    "no vocabulary": put("tokenizer.json", ("model", "vocab"), {}),
    "vocabulary a list": put("tokenizer.json", ("model", "vocab"), [1, 2]),
    "unknown token missing": put("tokenizer.json", ("model", "unk_token"), "<nowhere>"),
    "negative id": put("tokenizer.json", ("model", "vocab", "cup"), -1),
    "huge id": put("tokenizer.json", ("model", "vocab", "cup"), 2**31),
    "id beyond the table": put("tokenizer.json", ("model", "vocab", "cup"), 100_000),
    "id twice": put("tokenizer.json", ("model", "vocab", "cup"), 7),
    "BPE of wrong merges": put(
        "tokenizer.json", ("model",), {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"], ["x", "y"]]}
    ),
    "BPE of broken merges": put("tokenizer.json", ("model",), {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}),
    "BPE of bytes without bytes": put(
        "tokenizer.json",
        ("model",),
        {"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": True, "unk_token": "<unk>"},
    ),
    "unigram without unknown": put(
        "tokenizer.json", ("model",), {"type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0], ["b", -1.0]]}
    ),
    "unigram with no number": put(
        "tokenizer.json", ("model",), {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1e308], ["", 1e308]]}
    ),
    "unigram empty": put("tokenizer.json", ("model",), {"type": "Unigram", "unk_id": None, "vocab": []}),
    "word level without unknown": put(
        "tokenizer.json", ("model",), {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<none>"}
    ),
    "token of a megabyte": put("tokenizer.json", ("model", "vocab", "x" * (1 << 20)), 8),
    "special token of a megabyte": put(
        "tokenizer.json",
        ("added_tokens", 0, "content"),
        "y" * (1 << 20),
    ),
    "special token empty": put("tokenizer.json", ("added_tokens", 0, "content"), ""),
    "special token of another id": put("tokenizer.json", ("added_tokens", 0, "id"), 10**9),
    "padding to a billion": put(
        "tokenizer.json",
        ("padding",),
        {
            "strategy": {"Fixed": 10**9},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<pad>",
        },
    ),
    "truncation to nothing": put(
        "tokenizer.json",
        ("truncation",),
        {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5},
    ),
    "template that adds a million": put(
        "tokenizer.json",
        ("post_processor",),
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1] * 1_000_000, "tokens": ["<bos>"] * 1_000_000}},
        },
    ),
    "template without its token": put(
        "tokenizer.json",
        ("post_processor",),
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<no>", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        },
    ),
    "no decoder": put("tokenizer.json", ("decoder",), None),
    "decoder strips": pipeline("decoder", {"type": "Strip", "content": "a", "start": 2**60, "stop": 2**60}),
    "decoder of bytes": pipeline("decoder", {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "CTC"}),
    "settings name a file": edited("tokenizer_config.json", vocab_file="/etc/passwd"),
    "settings name another tokenizer": edited("tokenizer_config.json", tokenizer_file="/etc/passwd"),
    "settings name code": several(
        written("evil.py", PAYLOAD + "class Evil: pass\n"),
        edited("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, tokenizer_class="Evil"),
    ),
    "settings of an unknown class": edited("tokenizer_config.json", tokenizer_class="MagicTokenizer"),
    "settings of a slow class": edited("tokenizer_config.json", tokenizer_class="CTRLTokenizer"),
    "settings of another class": edited("tokenizer_config.json", tokenizer_class="LlamaTokenizer"),
    "settings of a bytes class": edited("tokenizer_config.json", tokenizer_class="ByT5Tokenizer"),
    "settings of GPT-2": edited("tokenizer_config.json", tokenizer_class="GPT2Tokenizer"),
    "settings with a template": edited("tokenizer_config.json", chat_template=[{"name": "x", "template": "{{"}]),
    "settings with many words": edited(
        "tokenizer_config.json", extra_special_tokens=[f"<{i}>" for i in range(100_000)]
    ),
    "settings with odd words": edited("tokenizer_config.json", extra_special_tokens={"a": {"b": 1}}),
    "settings with a huge word": edited("tokenizer_config.json", bos_token="z" * (1 << 20)),
    "settings with an id": edited(
        "tokenizer_config.json", added_tokens_decoder={"99999999999": {"content": "<x>", "special": True}}
    ),
    "further words": written("added_tokens.json", json.dumps({"<x>": 10**9})),
    "further special words": written("special_tokens_map.json", json.dumps({"bos_token": ["x"] * 1000})),
    "without end token": edited("tokenizer_config.json", eos_token=None),
    "without padding token": edited("tokenizer_config.json", pad_token=None),
    "no image token": put("tokenizer.json", ("added_tokens",), []),
}
