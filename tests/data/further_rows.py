"""Rows without pictures and of captions alone, beside those of `own_files.mixed_rows`."""

from __future__ import annotations

from own_files import llava_row

SCENES = 12
TEXT = [llava_row(f"only-{n}", [], [("is the sun red?", ["yes", "no"][n % 2])]) for n in range(12)]
CAPTIONS = [{"id": f"c-{n}", "image": f"p/{n:05}.png", "caption": ["a red sun.", "a cat."]} for n in range(SCENES)]
