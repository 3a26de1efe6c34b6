"""Trying out a tokenizer: run as a program of its own, because the library ends the whole process over some files.

Reads a tokenizer.json from the standard input and writes one line of JSON: ``{}``, or ``{"error": ...}``. Imports
nothing but the library, so that it starts in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

SECONDS, SECONDS_PER_MEGABYTE = 10, 1
MEMORY, MEMORY_PER_BYTE = 2 << 30, 64
"""What a trial may take: of processor time, and of bytes of addresses."""

TOKENS_PER_CHARACTER, CHARACTERS_PER_CHARACTER, SPARE = 16, 64, 256
MOST_TRIED = 64
PROBES = (
    "",
    "what color is the big cup? it's 3.14, isn't it?",
    'The Quick BROWN fox; x = f(y) != "z" {[<|~`@#$%^&*_-+\\/>]}',
    "\u0301\u200b\ufeff\u202e\U000e0001",
    "été naïve Straße ﬁ Ⅷ ½ ﷺ ΑΩ привет שלום مرحبا नमस्ते 你好，世界 こんにちは 한국어 🙂",
    "\t\n\r  \x00\x01\x7f line\u2028line",
)


def main() -> None:
    """The trial."""
    data = sys.stdin.buffer.read()
    _limit(len(data))
    try:
        _try(data.decode())
        result: dict[str, str] = {}
    except BaseException as error:  # Rust's panics are no Exception
        result = {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:200]}
    print(json.dumps(result))


def _limit(size: int) -> None:
    with contextlib.suppress(ImportError):  # Windows has no limits; its trial has a deadline alone
        import resource

        seconds = SECONDS + SECONDS_PER_MEGABYTE * (size >> 20)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        memory = MEMORY + MEMORY_PER_BYTE * size
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _try(text: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    # Whoever uses it asks for neither, and so does the trial.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    words = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda pair: pair[1])
    step = max(1, len(words) // MOST_TRIED)
    own = " ".join(word[:64] for word, _ in words[::step])
    repeated = (one * 2000 for one in _characters(json.loads(text)))
    for probe in (*PROBES, own, *repeated):
        _there_and_back(tokenizer, probe)
    for _, number in words[::step]:
        tokenizer.decode([number], skip_special_tokens=False)


def _there_and_back(tokenizer: Any, probe: str) -> None:
    for special in (True, False):
        ids = tokenizer.encode(probe, add_special_tokens=special).ids
        if len(ids) > TOKENS_PER_CHARACTER * len(probe.encode()) + SPARE:
            raise ValueError(f"it makes {len(ids):,} tokens of {len(probe)} characters")
    back = tokenizer.decode(ids)
    if len(back) > CHARACTERS_PER_CHARACTER * (len(probe) + SPARE):
        raise ValueError(f"it makes {len(back):,} characters of {len(probe)}")


def _characters(described: Any) -> list[str]:
    """What its patterns are about: a run of the wrong character may take a pattern for ever."""
    found = dict.fromkeys("a 1.\n-")
    levels = [described.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]
    while levels:
        level = levels.pop()
        if isinstance(level, dict):
            for key in ("String", "Regex"):
                pattern = level.get(key)
                found |= dict.fromkeys(pattern[:256] if isinstance(pattern, str) else "")
            levels += level.values()
        elif isinstance(level, list):
            levels += level
    return list(found)[:MOST_TRIED]


if __name__ == "__main__":
    main()
