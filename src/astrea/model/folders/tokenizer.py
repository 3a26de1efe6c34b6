"""The tokenizer of a model folder: looked at, tried out in a process of its own, then loaded.

The library that reads tokenizer.json panics over some files, ends the process over others, and does whatever a file
says to the texts it reads. What comes with this package is known; everything else is tried first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import (
    AGAIN,
    MAX_JSON_BYTES,
    MAX_TEMPLATE_BYTES,
    MAX_TOKENIZER_BYTES,
    foreign,
    parsed,
    read_bytes,
    read_json,
)
from astrea.common.paths import exists
from astrea.model.folders import tokenizer_trial as trial

SHIPPED_TOKENIZER = Path(__file__).parents[2] / "world" / "weights" / "model" / "tokenizer.json"
FURTHER = ("added_tokens.json", "special_tokens_map.json")
"""What transformers reads besides, where it is there."""

MOST_GROWTH = 64
MOST_WORDS, MOST_ADDED = 1 << 24, 1 << 14
LONGEST_TOKEN = 1024
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, ready to use.

    Raises:
        AstreaError: its files are missing, damaged, or describe a tokenizer that panics, takes for ever, or makes much
            of little; names the file.
    """
    path = folder / "tokenizer.json"
    data = read_bytes(path, MAX_TOKENIZER_BYTES)
    described = parsed(path, data)
    _check_settings(folder / "tokenizer_config.json")
    for name in FURTHER:
        if exists(folder / name):
            more = read_json(folder / name, MAX_JSON_BYTES)
            _check_added(folder / name, "it", more)
            for key, value in more.items():
                _check_added(folder / name, key, value)
    check_tokenizer(str(path), data, described)
    with foreign(f"the tokenizer files of {folder} cannot be used"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not tokenizer.is_fast:
            raise AstreaError(f"{path} is not what {type(tokenizer).__name__} reads", AGAIN)
        made = tokenizer.backend_tokenizer.to_str().encode()
    # Some classes of transformers take the words from the file and build the rest themselves.
    if json.loads(made) != described:
        check_tokenizer(str(path), made, json.loads(made))
    return tokenizer


def check_tokenizer(path: str, data: bytes, described: dict[str, Any]) -> None:
    """Look at a tokenizer, then try it out, unless it is the one that comes with this package.

    Args:
        path: what messages name. described: what ``data`` says.

    Raises:
        AstreaError: it is not to be used.
    """
    if SHIPPED_TOKENIZER.is_file() and hashlib.sha256(data).digest() == _shipped():
        return
    with foreign(f"{path} describes no tokenizer"):
        _check_pipeline(path, described)
        _check_words(path, described)
    if error := _tried(data):
        raise AstreaError(f"{path} describes a tokenizer that cannot be used: {error}", AGAIN)


@lru_cache(maxsize=1)
def _shipped() -> bytes:
    return hashlib.sha256(SHIPPED_TOKENIZER.read_bytes()).digest()


_known: dict[bytes, str] = {}


def _tried(data: bytes) -> str:
    """What is wrong with a tokenizer, found out once for each; "" if nothing is."""
    digest = hashlib.sha256(data).digest()
    if digest not in _known:
        _known[digest] = _try(data)
    return _known[digest]


def _try(data: bytes) -> str:
    limit = trial.SECONDS + trial.SECONDS_PER_MEGABYTE * (len(data) >> 20)
    environment = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            # Isolated (-I): nothing is imported from the folder that somebody happens to stand in.
            [sys.executable, "-I", trial.__file__],
            input=data,
            capture_output=True,
            timeout=6 * limit,  # the machine may be busy; the processor's time has a limit of its own
            env={**_needed(), **environment},
            check=False,
        )
        return str(json.loads(done.stdout).get("error", ""))
    except subprocess.TimeoutExpired:
        return "it takes for ever"
    except ValueError:
        return "it takes too long, or too much memory, or ends the process that reads it"
    except OSError as error:
        raise AstreaError(f"the tokenizer cannot be tried out: {error}", "allow Python to start a process") from error


def _needed() -> dict[str, str]:
    """Of the environment, what a process needs to start and to find its libraries."""
    names = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "HOME")
    return {name: os.environ[name] for name in names if name in os.environ}


def _check_settings(path: Path) -> None:
    """Whether a tokenizer_config.json names nothing outside the folder."""
    for key, value in read_json(path, MAX_JSON_BYTES).items():
        _check_added(path, key, value)
        if value is not None and (key.endswith("_file") or key in ("auto_map", "name_or_path", "gguf_file")):
            if key == "name_or_path" and isinstance(value, str):
                continue  # where it once came from; never read
            raise AstreaError(f"{path} names a file of its own in {key!r:.80}", "take it out of the file")


def _check_added(path: Path, key: str, value: Any) -> None:
    # Each is looked for in every text, and adding them takes its time.
    if isinstance(value, list | dict) and len(value) > MOST_ADDED:
        raise AstreaError(f"{path}: {key:.80} has {len(value):,} entries; at most {MOST_ADDED:,} are read", AGAIN)
    if isinstance(value, str) and len(value) > MAX_TEMPLATE_BYTES:
        raise AstreaError(f"{path}: {key:.80} has {len(value):,} characters", AGAIN)


def _check_pipeline(path: str, described: dict[str, Any]) -> None:
    """What a text may grow to, and patterns that may take for ever."""
    growth = 1.0
    for step in (step for part in PARTS for step in _levels(described.get(part))):
        pattern = step.get("pattern")
        if step.get("type") == "Replace" and isinstance(pattern, dict):
            found = pattern.get("String") or _plain_words(pattern.get("Regex"))
            # Any other pattern may match nothing at all, between any two characters.
            growth *= max(1.0, len(step["content"]) / len(found) if found else 1 + len(step["content"]))
        if isinstance(pattern, dict) and isinstance(regex := pattern.get("Regex"), str) and _may_take_for_ever(regex):
            raise AstreaError(f"{path} has the pattern {regex!r:.80}, which some texts take for ever", AGAIN)
        if isinstance(prefix := step.get("prepend", step.get("prefix")), str):
            growth *= 1 + len(prefix) / 64
    if growth > MOST_GROWTH:
        raise AstreaError(f"{path} makes texts up to {growth:,.0f} times as long", AGAIN)


def _plain_words(regex: Any) -> str:
    """What a pattern of whole words matches, such as ``\\bcolor\\b``; "" for any other."""
    words = re.fullmatch(r"\\b((?:[\w' ]|\\[ -])+)\\b", regex) if isinstance(regex, str) else None
    return words[1].replace("\\", "") if words else ""


def _may_take_for_ever(regex: str) -> bool:
    """Whether a group that is repeated without limit holds another repetition without limit, or a choice."""
    plain = re.sub(r"\\.|\[(?:\\.|\[[^\]]*\]|[^\]])*\]", "x", regex, flags=re.DOTALL)
    while inner := re.search(r"\(([^()]*)\)(\*|\+|\{\d+,\})?", plain):
        if inner[2] and re.search(r"[*+|]|\{\d+,\}", inner[1]):
            return True
        # What is repeated inside counts for the group around it.
        held = "x+" if inner[2] or re.search(r"[*+]|\{\d+,\}", inner[1]) else "x"
        plain = plain[: inner.start()] + held + plain[inner.end() :]
    return len(regex) > 4096


def _check_words(path: str, described: dict[str, Any]) -> None:
    words = (described.get("model") or {}).get("vocab") or {}
    names = words if isinstance(words, dict) else [pair[0] for pair in words if isinstance(pair, list) and pair]
    tokens = [token for token in described.get("added_tokens") or [] if isinstance(token, dict)]
    added = [token.get("content", "") for token in tokens]
    ids = [*(words.values() if isinstance(words, dict) else ()), *(token.get("id") for token in tokens)]
    if len(tokens) > MOST_ADDED or any(not isinstance(one, int) or not 0 <= one < MOST_WORDS for one in ids):
        raise AstreaError(f"{path} has too many added tokens, or ids that no table of words has", AGAIN)
    longest = max((len(name) for name in (*names, *added) if isinstance(name, str)), default=0)
    if longest > LONGEST_TOKEN:
        raise AstreaError(f"{path} has a token of {longest:,} characters; at most {LONGEST_TOKEN:,} are read", AGAIN)


def _levels(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for inner in inside:
        yield from _levels(inner)
