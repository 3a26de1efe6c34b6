"""The rival `written`: what the drawn world's experts found, as words in the prompt, and nothing between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from astrea.experts.protocol import ExpertFeatures
from astrea.lab.arena.run import Run
from astrea.lab.arena.variants import variants
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import Assembled, assemble
from astrea.world.experts.captioning import STATE, STEPS, VOCABULARY, word_tokens
from astrea.world.experts.classification import COUNTS, KIND_NAMES, tag_tokens
from astrea.world.experts.detection import DetectionExpert, slot_tokens
from astrea.world.experts.segmentation import region_tokens
from astrea.world.scenes.vocabulary import CATEGORIES, COLOURS, CONDITIONS

EVERYONE = {each.name: each for each in variants(load_recipe(Recipe, "neutral"))}
SLOTS = DetectionExpert.num_tokens
RECIPE = Run("neutral", (), EVERYONE["written"], 0).resolve()


@pytest.fixture(scope="module")
def made() -> Assembled:
    model, tokenizer = assemble(RECIPE, None)
    return model.eval(), tokenizer


def weights(names: tuple[str, ...] | list[str], **said: float) -> Tensor:
    """The weight (N,) of every name: as said, or a little of it."""
    assert set(said) <= set(names)
    return torch.tensor([said.get(name, 0.01) for name in names])


def found() -> dict[str, ExpertFeatures]:
    """What the four experts found in a picture: a red cat top left, a sun bottom right, at night."""
    words = torch.zeros(1, STEPS, len(VOCABULARY))
    for step, word in enumerate(("red", "cat")):
        words[0, step, VOCABULARY.index(word)] = 0.9
    ended = (torch.arange(STEPS) >= 2).unsqueeze(0)
    tags = weights(KIND_NAMES, cat=0.9, sun=0.8, mouse=0.95, cow=0.45)
    counts = [str(n + 1) for n in range(COUNTS)]
    classes, categories = list(DetectionExpert.class_names), list(CATEGORIES)
    boxes = torch.tensor([[0.6, 0.7, 0.8, 0.9], [0.1, 0.1, 0.3, 0.2]])
    things = torch.stack([weights(classes, sun=0.6, cat=0.3), weights(classes, cat=0.45, mouse=0.4)])
    region = weights(categories, animal=0.9), weights(COLOURS, red=0.5, pink=0.4), torch.tensor([0.2, 0.15])
    return {
        "captioning": word_tokens(words, ended, torch.zeros(1, STEPS, STATE)),
        "classification": tag_tokens(
            tags.unsqueeze(0),
            weights(CONDITIONS, night=0.7, blur=0.3).unsqueeze(0),
            weights(counts, **{"2": 0.4, "3": 0.35}).unsqueeze(0),
            torch.tensor([[0.2]]),
        ),
        "detection": slot_tokens(filled(things), filled(boxes), filled(torch.tensor([0.8, 0.7]))),
        "segmentation": region_tokens(
            *(filled(each.unsqueeze(0)) for each in region),
            *(filled(torch.tensor([value])) for value in (0.05, 0.0, 0.9)),
        ),
    }


def filled(slots: Tensor) -> Tensor:
    """One picture's slots (1, 8, ...) from the first few (T, ...), empty ones behind."""
    empty = slots.new_zeros(SLOTS - len(slots), *slots.shape[1:])
    return torch.cat([slots, empty]).unsqueeze(0)


TEXT = (
    "red cat "  # the caption's likeliest words
    "mouse cat sun ; "  # of the first group all that are likely, likeliest first; nothing of the other two groups
    "night ; "  # no count is likely, and a sign is not
    "red animal left above ; "
    "cat left above ; sun right below ;"  # from left to right, each by its likeliest class
)


def test_the_language_model_reads_the_likeliest_words_and_nothing_else(made):
    model, tokenizer = made
    question = torch.zeros(1, 1, model.config.text_config.hidden_size)
    visual = model.model.fuse(found(), None, question, None)
    read = visual.tokens[visual.valid]
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert torch.equal(read, model.get_input_embeddings().weight[torch.tensor(ids)])
    assert visual.bias is None


def test_no_word_that_an_expert_may_write_is_unknown_or_in_pieces(made):
    model, tokenizer = made
    ids = model.config.phrase_ids
    said = [token for slots in ids["names"].values() for names in slots.values() for name in names for token in name]
    said += [
        part
        for p in ids["phrases"].values()
        for phrase in p
        for parts in phrase
        if not isinstance(parts, str)
        for part in parts
    ]
    assert set(ids["phrases"]) == set(RECIPE.experts)
    assert tokenizer.unk_token_id not in said
    assert not [word for word in tokenizer.convert_ids_to_tokens(said) if word.startswith("##") and word != "##s"]


def test_the_language_model_learns_as_in_the_other_strategies_and_no_adapter_does(made):
    model, _ = made
    concat = Run("neutral", (), EVERYONE["sequence_concat"], 0).resolve()
    for stage in ("fuse", "tune"):
        mine, its = getattr(RECIPE, stage), getattr(concat, stage)
        rates = {"lr": its.lr}
        assert mine.model_copy(update=rates) == its
    assert RECIPE.align.steps == concat.align.steps == 0
    assert (RECIPE.llm, RECIPE.data) == (concat.llm, concat.data)
    assert [*model.model.alignment.adapters.parameters(), *model.model.fusion.parameters()] == []
