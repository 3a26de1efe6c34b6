"""Which options a call of the processor takes, in the several ways in which transformers lets them be given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from astrea.common.errors import AstreaError, shortened

CALL_OPTIONS = (
    "add_special_tokens",
    "input_data_format",
    "max_length",
    "pad_to_multiple_of",
    "padding",
    "padding_side",
    "return_mm_token_type_ids",
    "return_offsets_mapping",
    "truncation",
)
DICTIONARIES = ("text_kwargs", "images_kwargs", "common_kwargs", "processor_kwargs")  # the last from old pipelines


def call_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call, all of them named, those in dictionaries among them."""
    flat: dict[str, Any] = {}
    for name, value in given.items():
        if name in DICTIONARIES and isinstance(value, Mapping):
            flat |= value
        else:
            flat[name] = value
    wrong = [name for name in flat if name not in CALL_OPTIONS]
    if wrong:
        raise AstreaError(
            f"options not supported: {shortened(', '.join(map(str, wrong)))}",
            f"leave them out; there are {', '.join(CALL_OPTIONS)}",
        )
    return {**dict.fromkeys(CALL_OPTIONS), "padding": True, "add_special_tokens": True, **flat}


def reads(template: str, name: str) -> bool:
    """Whether a chat template speaks of a variable or key."""
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def sorted_options(template: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given beside a conversation: variables that the template reads, and options of a call."""
    variables: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or name in ("sanitize_control_tokens", "load_audio_from_video"):
            continue  # the first is always done; the second is about videos, which are refused
        if reads(template, name):
            variables[name] = value
        elif name in (*CALL_OPTIONS, *DICTIONARIES, "images"):
            options[name] = value
        elif value or name not in ("tools", "documents"):
            raise AstreaError(
                f"the chat template does not read {shortened(name)}, so it would be ignored",
                "leave it out, or use a chat template that does",
            )
    return variables, options
