"""What a request may cost, and what a server may hold at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps of one server.

    body_bytes, header_bytes: of a request; body_seconds: until its body must have come.
    pictures, picture_bytes, pixels: per request, per file, per picture. aspect: longest side over shortest.
    picture_seconds, picture_memory: for decoding one file, in the process that does nothing else.
    held_bytes: of decoded pictures in requests that wait or are answered, before others are turned away.
    messages: turns of a conversation. tokens: the longest answer. choices: the largest ``n``.
    stops, stop_characters: stop texts of a request, and characters of each.
    inputs: texts and pictures of one request for embeddings.
    running: answers that are decoded together. waiting: requests beyond those, before others are turned away.
    seconds: until a request must be answered. pictures_together: how many an expert looks at together.
    prefill_tokens: prompts read together have at most so many, padding included.
    cache_bytes: of experts' outputs kept for pictures seen before.
    """

    body_bytes: int = 32 << 20
    header_bytes: int = 32 << 10
    body_seconds: float = 30.0
    pictures: int = 8
    picture_bytes: int = 16 << 20
    pixels: int = 32_000_000
    aspect: float = 200.0
    picture_seconds: float = 10.0
    picture_memory: int = 2 << 30
    held_bytes: int = 1 << 30
    messages: int = 64
    tokens: int = 512
    choices: int = 8
    stops: int = 4
    stop_characters: int = 64
    inputs: int = 64
    running: int = 32
    waiting: int = 64
    seconds: float = 120.0
    pictures_together: int = 16
    prefill_tokens: int = 4096
    cache_bytes: int = 256 << 20
