"""Features that are written out as the nearest of the words that their adapter was taught."""

from __future__ import annotations

import pytest
import torch

from astrea import AstreaError
from astrea.alignment.known_words import same_before, with_known
from astrea.alignment.phrase_ids import COUNT_PIECES, MOST_PIECES, PhraseIds, check_phrase_ids
from astrea.alignment.phrases import COUNTED
from astrea.language.labels import inside_a_sentence
from astrea.language.whole_words import WholeWords
from astrea.model.loading import load_model
from astrea.training.assembly import assemble
from astrea.training.trainer import train
from phrase_experts import EXPERTS, seen
from small_runs import small_run

WORDS = ("cat", "frog", "red umbrella")
SPELLERS = {"things": {"kind": "phrase_experts:Speller"}, "signs": EXPERTS["signs"]}


class Pointing(torch.nn.Module):
    """Stands for an adapter's features: the finding in place ``slot`` points at its word, farther from the others."""

    def __init__(self, mean: torch.Tensor, vectors: torch.Tensor, words: list[int]) -> None:
        super().__init__()
        self.told = torch.nn.Parameter(mean + vectors[words] + 0.05)

    def forward(self, features_BTN: torch.Tensor) -> torch.Tensor:
        return self.told.expand(len(features_BTN), -1, -1)


@pytest.fixture
def built(language_checkpoint):
    """A model whose three findings are nearest to the words 1, 0 and 2, its tokenizer and features of two pictures."""
    return build(language_checkpoint, SPELLERS)


def build(language_checkpoint, experts):
    own = {"contrast_width": 16, "adapter_hidden": 24, "findings": "phrases", "strategy": "sequence_concat"}
    run = small_run(experts=experts, model=own, llm={"checkpoint": str(language_checkpoint("llama_tied"))})
    model, tokenizer = assemble(run, None)
    known = [inside_a_sentence(word, tokenizer) for word in WORDS]
    spelling = [list(tokenizer(word, add_special_tokens=False).input_ids)[:MOST_PIECES] for word in WORDS]
    ids = PhraseIds.model_validate(model.config.phrase_ids)
    model.config.phrase_ids = with_known(ids, known, {}, spelling).model_dump(mode="json")
    words = model.model.known_words()
    model.alignment.adapters["things"].slots["feature"] = Pointing(words.mean, words.vectors, [1, 0, 2])
    features = {name: part for name, part in seen(tokenizer).items() if name in SPELLERS}
    return model.eval(), tokenizer, features, spelling


def fused(model, features):
    question = torch.zeros(2, 1, model.config.text_config.hidden_size)
    with torch.no_grad():
        return model.fuse(features, None, question, None)


def test_the_nearest_word_is_read_in_its_own_tokens(built):
    model, _, features, spelling = built
    found, adapter = fused(model, features), model.alignment.adapters["things"]
    embed = model.get_input_embeddings().weight
    assert adapter.piece[:MOST_PIECES] == list(range(MOST_PIECES))
    for picture, finding, word in ((0, 0, 1), (0, 2, 2), (1, 1, 0)):
        at = finding * adapter.count
        tokens, read = (part[picture, at : at + MOST_PIECES] for part in (found.tokens, found.valid))
        ids = spelling[word]
        assert read.tolist() == [number < len(ids) for number in range(MOST_PIECES)]
        assert torch.equal(tokens[: len(ids)], embed[ids])


def test_findings_with_the_same_word_are_counted(language_checkpoint):
    """Of three findings, the first and the last are nearest to "frog": frog 1, cat 1, frog 2."""
    things = {**SPELLERS, "things": {"kind": "phrase_experts:Counter"}}
    model, tokenizer, features, _ = build(language_checkpoint, things)
    words, adapter = model.model.known_words(), model.alignment.adapters["things"]
    adapter.slots["feature"] = Pointing(words.mean, words.vectors, [1, 0, 1])
    features["things"].confidence[:] = 0.9
    features["things"].tokens[1, 0, :5] = 0  # the first finding of the second picture is hidden: it does not count
    found, embed = fused(model, features), model.get_input_embeddings().weight
    digits = [inside_a_sentence(str(number), tokenizer) for number in (1, 2)]
    for picture, finding, number in ((0, 0, 1), (0, 1, 1), (0, 2, 2), (1, 1, 1), (1, 2, 1)):
        at = finding * adapter.count + adapter.piece.index(COUNTED)
        read = found.valid[picture, at : at + COUNT_PIECES]
        ids = digits[number - 1]
        assert read.tolist() == [place < len(ids) for place in range(COUNT_PIECES)]
        assert torch.equal(found.tokens[picture, at : at + len(ids)], embed[ids])
    hidden = adapter.piece.index(COUNTED)
    assert not found.valid[1, hidden : hidden + COUNT_PIECES].any()


def test_each_expert_counts_what_is_read_by_itself():
    words = torch.zeros(1, 12, dtype=torch.long)
    read = torch.ones(1, 12, dtype=torch.bool)
    read[0, 1] = False
    experts = torch.tensor([0] * 8 + [1] * 4)
    assert same_before(words, read, experts)[0].tolist() == [1, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4]


def test_what_generation_has_looked_up_serves_training_too(built):
    """`generate` runs in inference mode, whose tensors no gradient may pass."""
    model, _, features, _ = built
    model.config.phrase_ids = dict(model.config.phrase_ids)  # as it is read from a file: nothing was looked up yet
    question = torch.zeros(2, 1, model.config.text_config.hidden_size)
    with torch.inference_mode():
        model.fuse(features, None, question, None)
    model.fuse(features, None, question, None).tokens.sum().backward()
    assert not model.model.known_words().vectors.requires_grad


def test_words_are_looked_up_again_when_the_language_model_may_have_learned(built):
    model, _, _, _ = built
    before = model.model.known_words()
    assert model.model.known_words() is before
    with torch.no_grad():
        model.get_input_embeddings().weight[7:].add_(torch.randn(1, model.config.text_config.hidden_size))
        model.get_input_embeddings().weight[:7].mul_(-1)
    assert not torch.equal(model.eval().model.known_words().mean, before.mean)


def test_a_finding_that_is_not_there_is_not_written(built):
    model, _, features, _ = built
    count = model.alignment.adapters["things"].count
    assert not fused(model, features).valid[0, count : count + MOST_PIECES].any()
    features["things"].tokens[0, 0, :5] = 0  # and neither are features that are hidden
    assert not fused(model, features).valid[0, :MOST_PIECES].any()


def test_what_no_slot_says_is_in_the_next_slot(built):
    model, _, features, _ = built
    before = fused(model, features).tokens
    adapter = model.alignment.adapters["things"]
    torch.nn.init.constant_(adapter.residuals[0].weight, 0.1)
    changed = (fused(model, features).tokens - before).abs().sum(-1)[0, : adapter.count] > 0
    assert changed.nonzero()[:, 0].tolist() == [MOST_PIECES]


def test_strange_features_leave_the_words_of_the_expert(built):
    model, _, features, _ = built
    ids = PhraseIds.model_validate(model.config.phrase_ids)
    strange = with_known(ids, ids.known, {"things": 1.0}, ids.spelling)
    model.config.phrase_ids = strange.model_dump(mode="json")
    found = fused(model, features).valid[0, : model.alignment.adapters["things"].count]
    own = torch.tensor(model.alignment.adapters["things"].phrase) == 1
    assert not found[~own].any()
    assert found[own].any()


def test_a_configuration_whose_words_do_not_fit_together_is_refused(built):
    model, _, _, _ = built
    written = {**model.config.phrase_ids, "spelling": [[1]]}
    with pytest.raises(AstreaError, match="3 known words, the spelling of 1"):
        check_phrase_ids(written, model.config.text_config.vocab_size)
    words = model.config.text_config.vocab_size
    with pytest.raises(AstreaError, match=f"token {words}"):
        check_phrase_ids({**model.config.phrase_ids, "counts": [[words]]}, words)


@pytest.mark.parametrize("taught", [True, False])
def test_a_run_that_teaches_words_writes_them(language_checkpoint, tmp_path, taught):
    """They are in its model's configuration; where nothing teaches words, features stay vectors."""
    own = {"contrast_width": 16, "adapter_hidden": 24, "findings": "phrases", "strategy": "sequence_concat"}
    losses = {"caption_words": 1.0} if taught else {"itc": 1.0}
    run = small_run(
        experts=SPELLERS,
        model=own,
        llm={"checkpoint": str(language_checkpoint("llama_tied"))},
        regularisation={"unfamiliar": 0.0},
        align__losses=losses,
        align__progressive=False,
    )
    model, processor = load_model(train(run, tmp_path), trust_remote_code=True)
    ids = PhraseIds.model_validate(model.config.phrase_ids)
    assert ids.spelled == {"things": ("feature",)}
    assert len(ids.known) == len(ids.spelling)
    assert (len(ids.known) > 0) == taught
    room = torch.tensor(model.alignment.adapters["things"].piece) == 0
    features = {name: part for name, part in seen(processor.tokenizer).items() if name in SPELLERS}
    found = fused(model, features)
    made = found.tokens[0, : len(room)][room & found.valid[0, : len(room)]]
    words = model.get_input_embeddings().weight
    is_word = (made.unsqueeze(1) == words).all(-1).any(1)
    assert is_word.tolist() == [taught] * len(made)


def test_texts_that_tell_nothing_apart_teach_no_words(language_checkpoint, tmp_path, monkeypatch):
    """A run on a few pictures that are all called the same comes to its end; features stay vectors."""
    monkeypatch.setattr("astrea.training.context.WholeWords", lambda *_: WholeWords(()))
    own = {"contrast_width": 16, "adapter_hidden": 24, "findings": "phrases", "strategy": "sequence_concat"}
    run = small_run(
        experts=SPELLERS,
        model=own,
        llm={"checkpoint": str(language_checkpoint("llama_tied"))},
        regularisation={"unfamiliar": 0.05},
        align__losses={"caption_words": 1.0},
        align__progressive=False,
    )
    model, _ = load_model(train(run, tmp_path), trust_remote_code=True)
    assert PhraseIds.model_validate(model.config.phrase_ids).known == ()
