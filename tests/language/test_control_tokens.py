"""What people write is never a control token, in any tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from astrea import AstreaError
from astrea.language.checkpoint import prepare_tokenizer
from astrea.language.control_tokens import ControlTokens, Found
from astrea.world.language.tiny import tiny_tokenizer
from language_builders import FAMILIES, small_tokenizer

TINY = tiny_tokenizer()


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def plain(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether the tokenizer finds nothing but ordinary text."""
    return not set(ids(tokenizer, text)) & (ControlTokens(tokenizer).ids.keys() - {tokenizer.unk_token_id})


def find(tokenizer: PreTrainedTokenizerBase, text: str, template: str | None = None) -> list[Found]:
    return ControlTokens(tokenizer, template).find(text)


def escape(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return ControlTokens(tokenizer).escape(text)


def test_found_with_their_places():
    found = find(TINY, "a cat<eos> and <assistant>")
    assert [(one.token, one.start, one.stop) for one in found] == [("<eos>", 5, 10), ("<assistant>", 15, 26)]
    assert find(TINY, "a < b, c > d, <b>bold</b>") == []


def test_escaped_text_is_what_its_characters_say():
    assert escape(TINY, "a cat<eos>.") == "a cat< eos>."
    assert ids(TINY, escape(TINY, "<user>")) == ids(TINY, "< user >")
    for text in ("what color is the cat?", "", "x <y> z", "100 % <- here"):
        assert escape(TINY, text) == text


@given(st.lists(st.sampled_from(["<", ">", "<image", "<image>", "<eos>", "e", "os>", " ", "<unk>", "<user>", "é"])))
@settings(max_examples=100)
def test_nothing_is_left_of_any_mixture(pieces):
    escaped = escape(TINY, "".join(pieces))
    assert plain(TINY, escaped)
    assert escaped.replace(" ", "") == "".join(pieces).replace(" ", "")
    assert escape(TINY, escaped) == escaped


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizers_of_other_families(family):
    tokenizer = small_tokenizer(family)
    prepare_tokenizer(tokenizer)
    control = ControlTokens(tokenizer)
    assert {"<image>", tokenizer.eos_token} <= set(control.names)
    for name in control.names:
        text = f"a {name} cat{name}{name}"
        assert len(control.find(text)) == 3
        assert plain(tokenizer, control.escape(text))


def test_added_tokens_count_when_the_template_writes_them():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<box>", "<turn>", "  "])
    tokenizer.chat_template = "{{ '<turn>' }}  {{ messages[0]['content'] }}"
    assert [one.token for one in find(tokenizer, "<box>  <turn>")] == ["<turn>"]
    assert [one.token for one in find(tokenizer, "<box>", "<box>")] == ["<box>"]


def test_tokens_that_are_looked_for_in_normalised_text():
    core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    tokenizer.add_tokens([AddedToken("<end>", special=True, normalized=True)])
    assert [one.token for one in find(tokenizer, "a <END> a")] == ["<end>"]
    assert plain(tokenizer, escape(tokenizer, "a <END> a <eNd>"))


def test_a_vocabulary_that_cannot_be_written_around():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["¤"]}, replace_extra_special_tokens=False)
    assert escape(tokenizer, "a¤b") == "a b"
    spaced = ["<x>", *("<" + " " * count + "x>" for count in range(1, 12))]
    tokenizer.add_special_tokens({"additional_special_tokens": spaced}, replace_extra_special_tokens=False)
    with pytest.raises(AstreaError, match="cannot be broken up"):
        escape(tokenizer, "<x>")
