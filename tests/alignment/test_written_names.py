"""A slot that is written out gives the tokens of its likeliest name, which nothing changes."""

from __future__ import annotations

import pytest
import torch

from astrea.alignment.phrase_ids import MOST_PIECES, PhraseIds, name_ids, spell
from astrea.alignment.phrases import NONE, phrase_adapter
from astrea.language.labels import inside_a_sentence
from phrase_experts import THINGS, Quiet, Seer, Writer


class Tokenizer:
    """Letters are tokens, and so is the space before a word."""

    def __call__(self, text: str, add_special_tokens: bool = False):
        return type("Ids", (), {"input_ids": [ord(letter) for letter in text]})()


@pytest.fixture(scope="module")
def ids() -> PhraseIds:
    found = spell("phrases", {"mixed": Seer, "written": Writer}, Tokenizer(), 1.0)
    assert found is not None
    return found


def finding(thing: int | None) -> torch.Tensor:
    """One finding (1, 1, C) with features and places, that is most of all ``thing``."""
    row = torch.zeros(1, 1, Seer.width)
    row[..., :5] = torch.rand(5)
    row[..., 8] = row[..., 10] = 1.0
    if thing is not None:
        row[..., 5:8] = 0.1
        row[..., 5 + thing] = 0.6
    return row


def read(adapter, row: torch.Tensor) -> list[int]:
    """The tokens that are read of a finding, `NONE` for those that are no words."""
    made = adapter(row, torch.ones(1, 1), torch.full((1, 1, 2), 0.5))
    return made.ids[made.read].tolist()


def test_names_are_kept_for_written_slots_alone(ids):
    assert set(ids.names) == {"written"}
    assert set(ids.names["written"]) == {"thing"}
    assert [part.written for phrase in ids.of("written", Writer) for part in phrase if hasattr(part, "written")] == [
        False, False, False, True, False, False
    ]  # fmt: skip


@pytest.mark.parametrize("thing", [0, 1, 2])
def test_the_likeliest_name_is_written_and_everything_else_is_as_it_was(ids, thing):
    size = {"hidden": 8, "model_width": 6}
    mixed = phrase_adapter("mixed", Seer(), ids, "phrases", **size)
    written = phrase_adapter("written", Writer(), ids, "phrases", **size)
    assert "thing" in mixed.slots
    assert "thing" not in written.slots
    row = finding(thing)
    before, after = read(mixed, row), read(written, row)
    name = name_ids(THINGS[thing], Tokenizer(), MOST_PIECES, first=True)
    at = next(i for i in range(1, len(before)) if before[i - 1] != NONE and before[i] == NONE)
    assert after == [*before[:at], *name, *before[at + 1 :]]


def test_without_a_name_or_features_a_phrase_is_not_read(ids):
    written = phrase_adapter("written", Writer(), ids, "phrases", hidden=8, model_width=6)
    both, nameless, blind = finding(0), finding(None), finding(0)
    blind[..., :5] = 0
    whole = read(written, both)
    without_name, without_features = read(written, nameless), read(written, blind)
    assert whole == [*without_name, *without_features]
    assert without_name
    assert without_features


class Tagger(Quiet):
    """Several things at once; one channel has no name."""

    num_tokens = 1
    width = 8
    labels = ("cat", "dog", None, "red umbrella", *"efgh")
    slots = {"tag": (0, 8)}
    phrases = ("{tag:name};",)
    multi_label = ("tag",)


@pytest.mark.parametrize("findings", ["phrases", "written"])
@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((0.6, 0.9, 0.0, 0.0), ("dog", "cat")),
        ((0.5, 0.4, 0.0, 0.51), ("red umbrella",)),
        ((0.6, 0.0, 0.99, 0.0), ("cat",)),
        ((0.5, 0.4, 0.99, 0.1), ()),
        ((0.9, 0.8, 0.0, 0.7, 0.65, 0.6, 0.55, 0.51), ("cat", "dog", "red umbrella", "e", "f", "g")),
    ],
)
def test_of_several_labels_all_that_are_likely_are_written_up_to_six(findings, weights, said):
    ids = spell(findings, {"tagger": Tagger}, Tokenizer(), 1.0)
    assert ids is not None
    adapter = phrase_adapter("tagger", Tagger(), ids, findings, hidden=8, model_width=6)
    row = torch.zeros(1, 1, Tagger.width)
    row[..., : len(weights)] = torch.tensor(weights)
    most = None if findings == "written" else MOST_PIECES
    wanted = [token for name in said for token in name_ids(name, Tokenizer(), most)]
    assert read(adapter, row) == ([*wanted, ord(";")] if said else [])
    assert adapter.count == len(adapter.phrase) == adapter(row, torch.ones(1, 1), torch.ones(1, 1, 2)).ids.shape[1]


def test_of_long_names_the_last_words_are_written():
    tokenizer = Tokenizer()
    assert name_ids("red umbrella", tokenizer, None) == tuple(inside_a_sentence("red umbrella", tokenizer))
    assert name_ids("a red cat", tokenizer, 4) == tuple(inside_a_sentence("cat", tokenizer))
    assert name_ids("umbrella", tokenizer, 4) == tuple(inside_a_sentence("umbrella", tokenizer))[:4]


class Spaced(Tokenizer):
    """A word is a token; one behind a space is another than one at a text's beginning."""

    def __call__(self, text: str, add_special_tokens: bool = False):
        found = [sum(map(ord, word)) * 2 + (number > 0) for number, word in enumerate(text.split(" "))]
        return type("Ids", (), {"input_ids": found})()


def test_a_name_that_begins_a_phrase_has_the_tokens_of_an_answer_that_begins_with_it():
    found = spell("phrases", {"written": Writer}, Spaced(), 1.0)
    assert found is not None
    tokenizer = Spaced()
    answers = [tuple(tokenizer(thing).input_ids) for thing in THINGS]
    assert list(found.names["written"]["thing"]) == answers
    assert answers != [name_ids(thing, tokenizer, MOST_PIECES) for thing in THINGS]


def test_a_name_inside_a_phrase_has_the_tokens_of_one_inside_a_sentence():
    class Telling(Writer):
        phrases = ("{feature} ;", "a {thing:name} ;")

    found = spell("phrases", {"telling": Telling}, Spaced(), 1.0)
    assert found is not None
    assert list(found.names["telling"]["thing"]) == [name_ids(thing, Spaced(), MOST_PIECES) for thing in THINGS]
