"""Findings that are written out are read exactly as the same words in the prompt are, however they are read: at once,
word by word from a cache, padded, packed, with windows; and phrases are saved and loaded like everything else."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from astrea import AstreaConfig, AstreaError, AstreaForConditionalGeneration, AstreaProcessor
from astrea.alignment.phrase_ids import word_scale
from astrea.experts.protocol import ExpertFeatures
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor
from astrea.training.assembly import assemble
from phrase_experts import EXPERTS, THINGS, Seer, seen
from small_runs import small_run

CONCAT = {"strategy": "sequence_concat"}


@pytest.fixture(scope="module")
def built(language_checkpoint):
    """A model, its tokenizer and what its experts found, by family and by what the recipe says of the model."""

    @cache
    def build(family: str, findings: str, fused: str = "sequence_concat"):
        own = {"contrast_width": 16, "adapter_hidden": 24, "findings": findings, "strategy": fused}
        steps = {"align__steps": 0} if findings == "written" else {}
        run = small_run(experts=EXPERTS, model=own, llm={"checkpoint": str(language_checkpoint(family))}, **steps)
        model, tokenizer = assemble(run, None)
        return model.eval(), tokenizer, seen(tokenizer)

    return build


def ids_of(tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def written(model, features, picture: int) -> list[int]:
    """The words that a picture's findings are, in order."""
    matrix = model.alignment(features)
    return matrix.ids[picture][matrix.valid[picture]].tolist()


def prompt(model, tokenizer, question: str = " what is it?") -> tuple[list[int], list[int]]:
    before, asked = ids_of(tokenizer, "describe the picture."), ids_of(tokenizer, question)
    return [*before, *[model.config.image_token_id] * model.num_visual_tokens, *asked], asked


def plain(model, features, picture: int, tokenizer, question: str = " what is it?") -> list[int]:
    """The same prompt with the findings as words."""
    before = ids_of(tokenizer, "describe the picture.")
    return [*before, *written(model, features, picture), *ids_of(tokenizer, question)]


def only(features, picture: int):
    return {name: part.rows(slice(picture, picture + 1)) for name, part in features.items()}


@torch.no_grad()
def of_language(model, ids: list[int]) -> Tensor:
    """Logits (L, V) of the language model alone."""
    return model.language_model(input_ids=torch.tensor([ids])).logits[0]


def test_findings_are_written_as_sentences(built):
    model, tokenizer, features = built("llama_tied", "written")
    said = [tokenizer.decode(written(model, features, picture)) for picture in (0, 1)]
    assert said == [' cat top left; red umbrella bottom right; it says "stop" top.', " dog top right;"]


def test_they_are_parts_of_the_vocabulary_as_text_has_them(built):
    """The ids are those of the sentence, but where a tokenizer would merge across the seams of slots."""
    model, tokenizer, features = built("llama_tied", "written")
    assert written(model, features, 1) == ids_of(tokenizer, " dog top right;")


def test_nothing_learns_in_what_is_written(built):
    model, _, _ = built("llama_tied", "written")
    assert list(model.alignment.adapters.parameters()) == []
    phrase = model.config.phrase_ids["phrases"]["things"][0]
    longest = [max(map(len, names)) for names in model.config.phrase_ids["names"]["things"].values()]
    assert model.alignment.counts[0] == Seer.num_tokens * (sum(longest) + len(phrase[-1]))
    assert model.alignment.counts[2] == 0


FAMILIES = ["llama", "qwen3", "gemma2", "gemma3", "gpt2", "mistral"]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_is_written_is_read_as_text_is(built, family):
    model, tokenizer, features = built(family, "written")
    for picture in (0, 1):
        ids, asked = prompt(model, tokenizer)
        found = model(input_ids=torch.tensor([ids]), features=only(features, picture)).logits[0]
        wanted = of_language(model, plain(model, features, picture, tokenizer))
        torch.testing.assert_close(found[-len(asked) :], wanted[-len(asked) :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_word_by_word_from_a_cache(built, family):
    model, tokenizer, features = built(family, "written")
    ids, asked = prompt(model, tokenizer)
    wanted = of_language(model, plain(model, features, 0, tokenizer))[-len(asked) :]
    row, kept, found = torch.tensor([ids]), None, []
    first = len(ids) - len(asked) + 1
    for start, stop in [(0, first), *((at, at + 1) for at in range(first, len(ids)))]:
        given = {} if start else {"features": only(features, 0)}
        out = model(input_ids=row[:, start:stop], past_key_values=kept, use_cache=True, **given)
        kept = out.past_key_values
        found.append(out.logits[0, -1])
    torch.testing.assert_close(torch.stack(found), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_prompt_may_be_read_in_pieces_that_end_before_anything_is_read(built):
    model, tokenizer, features = built("llama", "written")
    ids, asked = prompt(model, tokenizer)
    ids = ids[len(ids) - len(asked) - model.num_visual_tokens :]  # the picture comes first, and nothing is seen in it
    empty = {
        name: ExpertFeatures(part.tokens, torch.zeros_like(part.confidence), part.places)
        for name, part in only(features, 0).items()
    }
    first = model(input_ids=torch.tensor([ids[: -len(asked)]]), features=empty, use_cache=True)
    found = model(input_ids=torch.tensor([asked]), past_key_values=first.past_key_values, use_cache=True).logits[0]
    torch.testing.assert_close(found, of_language(model, asked), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@torch.no_grad()
def test_rows_of_different_length_are_generated_as_their_words_would_be(built, family):
    model, tokenizer, features = built(family, "written")
    rows = [prompt(model, tokenizer, question)[0] for question in (" what is it?", " how many umbrellas are there?")]
    longest = max(map(len, rows))
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
    made = model.generate(input_ids=padded, attention_mask=mask, features=features, **options)[:, longest:].tolist()
    for picture, question in enumerate((" what is it?", " how many umbrellas are there?")):
        ids = plain(model, features, picture, tokenizer, question)
        alone = model.language_model.generate(
            input_ids=torch.tensor([ids]), suppress_tokens=[model.config.image_token_id], **options
        )
        assert made[picture] == alone[0, len(ids) :].tolist()
    # A draft is read several words at a time.
    one = {"input_ids": padded[1:], "attention_mask": mask[1:], "features": only(features, 1)}
    drafted = model.generate(**one, prompt_lookup_num_tokens=3, **options)[0, longest : longest + 6].tolist()
    assert drafted == made[1]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@torch.no_grad()
def test_questions_packed_behind_one_picture_are_read_alone(built, family):
    model, tokenizer, features = built(family, "written")
    questions = [" what is it?", " is there a dog?", " why?"]
    shared = prompt(model, tokenizer, "")[0]
    asked = [ids_of(tokenizer, question) for question in questions]
    row = torch.tensor([[*shared, *(i for ids in asked for i in ids)]])
    segments = torch.tensor([[*[0] * len(shared), *(n for n, ids in enumerate(asked, 1) for _ in ids)]])
    found = model(input_ids=row, segments=segments, features=only(features, 0)).logits[0]
    at = len(shared)
    for question, ids in zip(questions, asked, strict=True):
        wanted = of_language(model, plain(model, features, 0, tokenizer, question))[-len(ids) :]
        torch.testing.assert_close(found[at : at + len(ids)], wanted, atol=1e-5, rtol=1e-5)
        at += len(ids)


@torch.no_grad()
def test_two_pictures_in_a_row_are_read_one_after_another(built):
    model, tokenizer, features = built("llama", "written")
    picture = [model.config.image_token_id] * model.num_visual_tokens
    between, asked = ids_of(tokenizer, " and"), ids_of(tokenizer, " what?")
    found = model(input_ids=torch.tensor([[*picture, *between, *picture, *asked]]), features=features).logits[0]
    words = [*written(model, features, 0), *between, *written(model, features, 1), *asked]
    wanted = of_language(model, words)[-len(asked) :]
    torch.testing.assert_close(found[-len(asked) :], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_expert_that_is_absent_leaves_no_gap(built):
    model, tokenizer, features = built("llama", "written")
    ids, asked = prompt(model, tokenizer)
    present = torch.tensor([[False, True, True]])
    found = model(input_ids=torch.tensor([ids]), features=only(features, 0), present=present).logits[0]
    matrix = model.alignment(only(features, 0), present)
    said = matrix.ids[0][matrix.valid[0]].tolist()
    assert tokenizer.decode(said) == ' it says "stop" top.'
    wanted = of_language(model, [*ids_of(tokenizer, "describe the picture."), *said, *asked])[-len(asked) :]
    torch.testing.assert_close(found[-len(asked) :], wanted, atol=1e-5, rtol=1e-5)


# Phrases


def test_tokens_of_a_phrase_are_as_long_as_words(built):
    model, tokenizer, features = built("llama", "phrases")
    matrix = model.with_words(model.alignment(features))
    scale = word_scale(model.get_input_embeddings(), len(tokenizer))
    assert scale == pytest.approx(model.config.phrase_ids["scale"])
    made = matrix.valid & (matrix.ids < 0)
    length = matrix.tokens.norm(dim=-1)[made]
    assert len(length) > 5
    torch.testing.assert_close(length, torch.full_like(length, scale), atol=1e-3, rtol=1e-4)
    own = matrix.valid & (matrix.ids >= 0)
    rows = model.get_input_embeddings()(matrix.ids[own])
    assert torch.equal(matrix.tokens[own], rows)


def test_counts_follow_from_the_phrases(built):
    model, _, features = built("llama", "phrases")
    semicolon, said = 1, len(model.config.phrase_ids["phrases"]["signs"][0][0])
    assert model.alignment.counts[0] == 3 * 2 * (3 + semicolon)
    end = len(model.config.phrase_ids["phrases"]["signs"][0][2])
    dot = len(model.config.phrase_ids["phrases"]["signs"][0][4])
    assert model.alignment.counts[1] == 2 * (said + 4 + end + 1 + dot)
    assert model.alignment.counts[2] == 2
    assert model.num_visual_tokens == sum(model.alignment.counts) == model.alignment(features).tokens.shape[1]


@torch.no_grad()
def test_a_slot_of_one_certain_name_starts_at_its_word(built):
    model, tokenizer, _ = built("llama", "phrases")
    adapter, embed = model.alignment.adapters["things"], model.get_input_embeddings()
    sure = torch.eye(3).unsqueeze(0)
    found = torch.nn.functional.normalize(adapter.slots["thing"](sure)[0], dim=-1)
    words = [embed(torch.tensor(ids_of(tokenizer, f" {name}"))).mean(0) for name in THINGS]
    torch.testing.assert_close(found, torch.nn.functional.normalize(torch.stack(words), dim=-1))


@torch.no_grad()
def test_what_no_slot_says_is_in_the_first_one(built):
    """Exact places, confidence and further channels: they start without effect, and can have one there alone."""
    model, _, features = built("llama", "phrases")
    adapter = model.alignment.adapters["things"]
    part = only(features, 0)["things"]
    before = adapter(part.tokens, part.confidence, part.places).tokens
    other = part.tokens.clone()
    other[..., 12:] += 1
    for places, sure, tokens in (
        (part.places + 0.01, part.confidence, part.tokens),
        (part.places, part.confidence * 0.9, part.tokens),
        (part.places, part.confidence, other),
    ):
        assert torch.equal(adapter(tokens, sure, places).tokens, before)
        try:
            for residual in adapter.residuals:
                residual.weight.fill_(0.1)
            change = adapter(tokens, sure, places).tokens - adapter(part.tokens, part.confidence, part.places).tokens
        finally:
            for residual in adapter.residuals:
                residual.weight.zero_()
        each = change[0, :8].abs().sum(-1)
        assert (each > 0).tolist() == [True, False, False, False] * 2


def test_ways_of_knowing_are_dropped_in_training_and_never_both(built):
    model, _, features = built("llama", "phrases")
    question = torch.zeros(2, 1, model.config.text_config.hidden_size)
    whole = model.fuse(features, None, question, None, None, 1.0).valid
    assert torch.equal(whole, model.fuse(features, None, question, torch.Generator(), None, 0.0).valid)
    phrase = model.alignment(features).phrase
    seer = torch.arange(len(phrase)) < 24
    lost = set()
    for seed in range(12):
        some = model.fuse(features, None, question, torch.Generator().manual_seed(seed), None, 1.0).valid
        # Experts of one phrase keep it.
        assert torch.equal(some[:, ~seer], whole[:, ~seer])
        for picture in (0, 1):
            gone = whole[picture] & ~some[picture]
            assert len(set(phrase[gone].tolist())) == 1
            assert torch.equal(gone, whole[picture] & seer & (phrase == phrase[gone][0]))
            lost.add(int(phrase[gone][0]))
    assert lost == {0, 1}


def test_training_reads_without_one_way_of_knowing(built):
    """Through the whole model: with a chance of 1 what is answered depends on the draw, with 0 it does not."""
    model, tokenizer, features = built("llama", "phrases")
    row, _ = prompt(model, tokenizer)
    ids = torch.tensor([row])

    def answer(seed: int, chance: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return model(input_ids=ids, features=only(features, 0), generator=generator, phrase_dropout=chance).logits

    assert all(torch.equal(answer(0, 0.0), answer(seed, 0.0)) for seed in range(1, 8))
    assert len({float(answer(seed, 1.0)[0, -1].sum()) for seed in range(8)}) == 2


@pytest.mark.parametrize("fused", ["sequence_concat", "astrea"])
@pytest.mark.parametrize("findings", ["written", "phrases"])
@torch.no_grad()
def test_a_saved_model_says_the_same(built, findings, fused, tmp_path):
    model, tokenizer, features = built("llama_tied", findings, fused)
    processor = AstreaProcessor(AstreaImageProcessor(model.config.image_size), tokenizer, model.num_visual_tokens)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load_model(tmp_path, trust_remote_code=True)
    ids, _ = prompt(model, tokenizer)
    wanted = model(input_ids=torch.tensor([ids, ids]), features=features).logits
    assert torch.equal(again(input_ids=torch.tensor([ids, ids]), features=features).logits, wanted)
    # Text experts are told the language model's tokenizer, here as when it was made.
    assert model.experts["signs"].tokenizer is tokenizer
    assert again.experts["signs"].tokenizer.get_vocab() == tokenizer.get_vocab()


@torch.no_grad()
def test_shares_are_a_bias_on_phrases_too(built):
    model, tokenizer, features = built("llama", "phrases", "astrea")
    assert model.fusion.mixer is None
    assert model.fusion.word_match is None
    assert model.fusion.trust is None
    ids, _ = prompt(model, tokenizer)
    row = {"input_ids": torch.tensor([ids]), "features": only(features, 0)}
    before = model(**row).logits
    bias = model.fusion.allocator.load_bias
    try:
        bias[0] += 3
        assert not torch.allclose(model(**row).logits[0, -1], before[0, -1])
    finally:
        bias[0] -= 3


def test_a_configuration_without_phrases_is_refused(built):
    model, _, _ = built("llama", "phrases")
    described = model.config.to_dict()

    def made(phrase_ids) -> AstreaForConditionalGeneration:
        config = AstreaConfig.from_dict(described | {"phrase_ids": phrase_ids})
        return AstreaForConditionalGeneration(config, allow_import=True)

    for phrase_ids, said in (
        (None, "no phrase_ids"),
        ({"scale": 0, "phrases": {}}, "scale"),
        ({"scale": float("nan"), "phrases": {}}, "scale"),
        ({"scale": 1.0, "phrases": {"things": [[[10**6]]]}}, "the token 1000000"),
        ({"scale": 1.0, "phrases": {"things": [[[-1]]]}}, "phrase_ids.phrases.things"),
        ({"scale": 1.0, "phrases": {"things": [["nothing"]]}}, "slot 'nothing'"),
        ({"scale": 1.0, "phrases": {}, "more": 1}, "phrase_ids.more"),
    ):
        with pytest.raises(AstreaError, match=said):
            made(phrase_ids)
    with pytest.raises(AstreaError, match="findings is 'poems'"):
        AstreaConfig.from_dict(described | {"findings": "poems"})


@torch.no_grad()
def test_a_word_that_the_language_model_lacks_is_refused(built):
    model, tokenizer, features = built("llama", "phrases")
    wrong = only(features, 0)
    wrong["signs"] = ExpertFeatures(wrong["signs"].tokens.clone(), wrong["signs"].confidence)
    wrong["signs"].tokens[0, 0, 0] = 1e6
    ids, _ = prompt(model, tokenizer)
    with pytest.raises(AstreaError, match="an expert reads the word piece 1000000"):
        model(input_ids=torch.tensor([ids]), features=wrong)


def test_something_must_be_there_to_write(language_checkpoint):
    checkpoint = {"checkpoint": str(language_checkpoint("llama"))}
    wordless = {"lines": EXPERTS["lines"]}
    run = small_run(experts=wordless, model=CONCAT | {"findings": "written"}, llm=checkpoint, align__steps=0)
    with pytest.raises(AstreaError, match="none of the experts lines can be written out"):
        assemble(run, None)


def test_slots_are_as_the_expert_has_them():
    assert Seer.labels[slice(*Seer.slots["thing"])] == THINGS
