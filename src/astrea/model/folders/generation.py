"""What the generation_config.json of a model folder may say.

Ways of generating that need code, a tokenizer, a second model or another cache are for a call to ask for, not for a
file that somebody sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import AGAIN, MAX_JSON_BYTES, read_json
from astrea.common.paths import exists

GENERATION = "generation_config.json"
MOST_TOKENS, MOST_BEAMS, MOST_LISTED = 1 << 20, 32, 4096

Check = Callable[[Any], bool]


def _whole(low: int, high: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _real(low: float, high: float) -> Check:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


_tokens, _share = _whole(0, MOST_TOKENS), _real(0, 1)
ALLOWED: Mapping[str, Check] = {
    **dict.fromkeys(("max_length", "max_new_tokens", "min_length", "min_new_tokens"), _tokens),
    **dict.fromkeys(("num_beams", "num_return_sequences"), _whole(1, MOST_BEAMS)),
    **dict.fromkeys(("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values"), _truth),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), _share),
    "early_stopping": lambda value: _truth(value) or value == "never",
    "temperature": _real(1e-3, 1e3),
    "top_k": _whole(0, 1 << 24),
    "repetition_penalty": _real(1e-2, 1e2),
    "length_penalty": _real(-1e2, 1e2),
    "no_repeat_ngram_size": _whole(0, 64),
    "_from_model_config": _truth,
    "transformers_version": lambda value: isinstance(value, str),
}
"""Numbers, not ids of tokens."""

IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens")


def check_generation(folder: Path, words: int) -> None:
    """Whether the folder's way of generating is one that a file may ask for; without the file all is as usual.

    Args:
        words: how many tokens the model knows.

    Raises:
        AstreaError: it is not; names the key.
    """
    path = folder / GENERATION
    if not exists(path):
        return
    usual = GenerationConfig()
    for key, value in read_json(path, MAX_JSON_BYTES).items():
        # What says nothing is what transformers itself writes.
        if value is None or (key not in ALLOWED and key not in IDS and _same(value, getattr(usual, key, None))):
            continue
        if key in IDS:
            ids = value if isinstance(value, list) else [value]
            good = len(ids) <= MOST_LISTED and all(_whole(0, words - 1)(one) for one in ids)
        elif key in ("output_attentions", "output_hidden_states", "output_scores", "output_logits"):
            good = value is False
        elif key in ALLOWED:
            good = ALLOWED[key](value)
        else:
            raise AstreaError(
                f"{path} asks for {key!r:.80}, which a model folder may not ask for",
                "take it out of the file, and give it to `generate` where you want it",
            )
        if not good:
            raise AstreaError(f"{path}: {key} is {value!r:.80}, which is out of range", AGAIN)


def _same(value: Any, usual: Any) -> bool:
    return type(value) is type(usual) and bool(value == usual)
