"""What a checkpoint's own tokenizer says: phrases for an open vocabulary, prompts and words of a captioner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.experts.pretrained.fresh import no_words
from astrea.experts.pretrained.options import MAX_VOCABULARY_BYTES
from astrea.experts.pretrained.source import check_words, read_generation_json

PROMPTS = {"florence2": "What does the image describe?"}
"""What a captioner is asked where the recipe says nothing; Florence-2's is its <CAPTION> task (arXiv 2311.06242)."""
ENDS = {"blip": "sep_token_id"}
"""Which token ends a sentence where it is not the usual one."""
SEPARATOR = "."


def read_words(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint.

    Raises:
        AstreaError: its files are missing, too large, or no tokenizer.
    """
    check_words(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # foreign files make transformers and tokenizers raise nearly any type
        raise AstreaError(
            f"the tokenizer of {folder} cannot be read: {first_line(error)}", "put its tokenizer.json into the folder"
        ) from error


def phrase_text(folder: Path, config: Any, phrases: Sequence[str]) -> dict[str, Any]:
    """The phrases as Grounding DINO reads them (``[CLS] cat . dog . [SEP]``), and where each stands in that text.

    Raises:
        AstreaError: there are none, they are too long together, or one is nothing to the tokenizer.
    """
    if not phrases:
        raise AstreaError("an open-vocabulary detector needs phrases to look for", "phrases: [cat, dog]")
    words = read_words(folder)
    dot = words(SEPARATOR, add_special_tokens=False).input_ids
    text, spans = [words.cls_token_id], []
    for phrase in phrases:
        pieces = words(phrase.lower().strip(" ."), add_special_tokens=False).input_ids
        if not pieces or words.unk_token_id in pieces:
            raise AstreaError(f"the checkpoint has no words for the phrase {phrase!r}", "say it otherwise")
        spans.append([len(text), len(text) + len(pieces)])
        text += [*pieces, *dot]
    text.append(words.sep_token_id)
    if None in text:
        raise AstreaError(f"the tokenizer of {folder} has no [CLS] and [SEP]", "use the checkpoint's own tokenizer")
    if len(text) > config.max_text_len:
        raise AstreaError(
            f"the phrases are {len(text)} tokens long, the checkpoint reads {config.max_text_len}", "give fewer phrases"
        )
    return {"prompt_ids": text, "spans": spans}


def vocabulary_bytes(folder: Path) -> bytes:
    """The tokenizer.json that turns a captioner's tokens into words, as UTF-8.

    Raises:
        AstreaError: there is none, or it is larger than what is kept with the weights.
    """
    core = getattr(read_words(folder), "backend_tokenizer", None)
    if core is None:
        raise AstreaError(f"{folder} has no fast tokenizer", "put its tokenizer.json into the folder")
    text: bytes = core.to_str().encode("utf-8")
    if len(text) > MAX_VOCABULARY_BYTES:
        raise AstreaError(
            f"the tokenizer of {folder} has {len(text):,} bytes; at most {MAX_VOCABULARY_BYTES:,} are kept",
            "use another captioner",
        )
    return text


def caption_settings(folder: Path | None, config: Any, prompt: str | None) -> dict[str, Any]:
    """What a captioner is asked, and the tokens that frame its sentences.

    Args:
        folder: the checkpoint's; None = there is none, and the prompt gets one meaningless piece per word.
        prompt: text that the sentence goes on from (BLIP, GIT) or that asks for it (Florence-2); None = the usual one.
    """
    text: Any = getattr(config, "text_config", config)
    prompt = PROMPTS.get(config.model_type, "") if prompt is None else prompt
    if folder is None:
        said, pieces, size = {}, [0] * len(prompt.split()), len(no_words())
    else:
        said, size = read_generation_json(folder), len(vocabulary_bytes(folder))
        pieces = list(read_words(folder)(prompt, add_special_tokens=False).input_ids) if prompt else []

    def token(name: str) -> int | None:
        value = said.get(name, getattr(text, name, None))
        value = getattr(config, name, None) if value is None else value
        return value[0] if isinstance(value, list) else value

    begin, end = token("bos_token_id"), token(ENDS.get(config.model_type, "eos_token_id"))
    whole = bool(config.is_encoder_decoder)
    asked = [begin, *pieces, end] if whole else [begin, *pieces]
    if None in asked:
        where = "the architecture" if folder is None else folder / "config.json"
        raise AstreaError(f"{where} names no bos_token_id", "use the checkpoint's own configuration")
    return {
        "prompt_ids": asked,
        "vocabulary_bytes": size,
        "start_id": token("decoder_start_token_id") if whole else None,
        "end_ids": [index for index in dict.fromkeys([end, token("pad_token_id")]) if index is not None],
        "forced_id": token("forced_bos_token_id") if whole else None,
        "no_repeat": int(said.get("no_repeat_ngram_size") or getattr(text, "no_repeat_ngram_size", 0) or 0),
    }
