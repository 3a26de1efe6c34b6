"""Plain chat of the untouched language model in batches where it learns, so that it forgets less."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.data.packing import answer_losses
from astrea.estimate.build import fake_context
from astrea.language.facts import FACTS
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training import plain_chat as chatting
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.plain_chat import (
    KEPT,
    PlainChat,
    Turn,
    chat_rows,
    most_chat,
    plain_questions,
    whole_sentences,
)
from astrea.training.stages.instruct import InstructObjective
from astrea.training.stopping import Interrupted
from astrea.training.trainer import check_plans, train
from own_contexts import data_of, fresh, fusing, only_learning
from own_files import drawn, llava_row, save_pictures, write_jsonl
from shared_models import SMALL

CHAT = PlainChat((Turn("what is the sun?", "the sun is red."), Turn("who barks?", "one dog.")))


@pytest.fixture
def make_chatting(make_run, language_checkpoint, world_data):
    """A context of the base recipe around a small language model, with some plain chat."""

    def make(share: float, **changes) -> TrainingContext:
        run = make_run(llm={"checkpoint": str(language_checkpoint("llama"))}, data__text_share=share, **changes)
        torch.manual_seed(1)
        ctx = TrainingContext(run, *fresh(run), world_data)
        ctx.chat = CHAT
        return ctx

    return make


def pictureless(batch) -> list[int]:
    return [row for row in range(len(batch.groups)) if row not in set(batch.row.tolist())]


def test_the_questions_are_many_and_none_is_a_fact():
    questions = plain_questions()
    assert len(questions) >= 300
    assert len({question.casefold() for question in questions}) == len(questions)
    assert not {question.casefold() for question in questions} & {fact.question.casefold() for fact in FACTS}
    assert all(question.strip() == question and 5 < len(question) < 120 for question in questions)


@pytest.mark.parametrize("strategy", ["astrea", "sequence_concat", "mova"])
def test_rows_without_a_picture_take_the_place_of_samples(make_chatting, strategy):
    ctx = make_chatting(0.25, **({} if strategy == "astrea" else {"model": {"strategy": strategy}}))
    objective = fusing(ctx, "tune")
    batch = objective.batch(0, 0, 8)
    assert batch.samples.pictures == 6
    plain = pictureless(batch)
    assert plain == [len(batch.groups) - 2, len(batch.groups) - 1]
    assert batch.groups[plain].eq(-1).all()
    told = [ctx.tokenizer.decode(batch.packed.labels[row][batch.packed.labels[row] != -100]) for row in plain]
    for row, answer in zip(plain, told, strict=True):
        (turn,) = [turn for turn in CHAT.turns if turn.answer in answer]
        assert turn.question in ctx.tokenizer.decode(batch.packed.input_ids[row])
        assert ctx.model.config.image_token_id not in batch.packed.input_ids[row]
    assert torch.isfinite(objective.loss(batch, 0)[0])
    again = objective.batch(0, 0, 8)
    assert torch.equal(batch.packed.input_ids, again.packed.input_ids)
    # The samples are those that the batch has without chat, but for the last ones.
    ctx.recipe = ctx.recipe.model_copy(update={"data": ctx.recipe.data.model_copy(update={"text_share": 0.0})})
    bare = fusing(ctx, "tune").batch(0, 0, 8)
    assert bare.samples.names[:6] == batch.samples.names
    assert pictureless(bare) == []


def test_only_where_the_language_model_learns(make_chatting):
    ctx = make_chatting(0.5)
    assert pictureless(fusing(ctx, "fuse").batch(0, 0, 8)) == []
    assert len(pictureless(fusing(ctx, "tune").batch(0, 0, 8))) == 4


def test_a_batch_of_one_sample_gets_rows_as_well(make_chatting):
    objective = fusing(make_chatting(0.5), "tune")
    counts = [len(pictureless(objective.batch(step, 0, 1))) for step in range(20)]
    assert set(counts) == {0, 1}
    assert all(objective.batch(step, 0, 1).samples.pictures == 1 for step in range(4))


def test_the_share_is_kept_on_average(make_chatting):
    recipe = make_chatting(0.05).recipe
    counts = [chat_rows(recipe, "tune", step, micro, 4) for step in range(200) for micro in range(4)]
    assert set(counts) == {0, 1}
    assert sum(counts) / (4 * len(counts)) == pytest.approx(0.05, abs=0.01)
    assert most_chat(0.05, 4) == 1
    assert most_chat(0.5, 1) == 0


def test_on_data_of_ones_own(make_run, language_checkpoint, tmp_path):
    """Rows there are conversations, which number their questions."""
    scenes = drawn(6)
    rows = [
        llava_row(f"r{number}", [path], [("is there a cat?", "no"), ("a dog?", "yes")])
        for number, path in enumerate(save_pictures(scenes, tmp_path))
    ]
    file = write_jsonl(tmp_path / "own.jsonl", rows)
    run = make_run(llm={"checkpoint": str(language_checkpoint("gpt2"))}, data__text_share=0.5)
    model, tokenizer = fresh(run)
    for packed in (None, 400):
        ctx = TrainingContext(run, model, tokenizer, data_of([file], model, tokenizer, row_tokens=packed))
        ctx.chat = CHAT
        objective = fusing(ctx, "tune")
        batch = objective.batch(0, 0, 4)
        assert batch.samples.pictures == 2
        assert len(pictureless(batch)) == 2
        assert batch.packed.questions is not None
        assert batch.packed.questions[-1].max() == 1
        assert torch.isfinite(objective.loss(batch, 0)[0])


def test_what_the_model_said_it_says_the_more(make_chatting):
    """The switch does something: the loss of the chat after a few steps, with and without."""
    ends = []
    for share in (0.0, 0.5):
        ctx = make_chatting(share)
        objective = InstructObjective(ctx, "tune", ctx.recipe.tune, offset=0)
        only_learning(ctx, objective)
        schedule = ctx.recipe.tune.lasting(4).model_copy(update={"batch": 4, "muon": 0.0})
        run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda *_: None)
        packed = ctx.packer.pack([[turn] for turn in CHAT.turns], pictures=False)
        with torch.no_grad():
            logits = ctx.model.eval()(**packed.model_inputs(), use_cache=False).logits
        ends.append(float(answer_losses(logits, packed.labels, packed.segments, 1).mean()))
    assert ends[1] < ends[0] - 0.3


class Keeps(Reporter):
    """Notes what is said and tracked; stops a run at a stage's first step."""

    def __init__(self, stops_in: str = "") -> None:
        self.stops_in, self.said, self.labels = stops_in, list[str](), set[str]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        self.labels.add(label)
        if label == self.stops_in and done:
            raise Interrupted("stopped by the test")


ASKING = "asking the language model plain questions"


@pytest.mark.slow
def test_a_run_makes_it_once_and_resumes_bit_for_bit(language_checkpoint, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(chatting, "plain_questions", lambda: plain_questions()[:12])
    monkeypatch.setattr(chatting, "LONGEST", 6)
    short = ["align.steps=0", "fuse.steps=1", "tune.steps=3", "tune.save_every=1", "data.train_scenes=12"]
    recipe = load_recipe(
        Recipe, "tiny", [*SMALL, *short, f"llm.checkpoint={language_checkpoint('llama')}", "data.text_share=0.3"]
    )
    first, again, resumed = Keeps(), Keeps("tune"), Keeps()
    whole = load_file(train(recipe, tmp_path / "a" / "run", report=first) / "model.safetensors")
    assert ASKING in first.labels
    assert any("of the untouched language model, 30.0% of samples" in text for text in first.said)
    noted = json.loads((tmp_path / "a" / "run" / KEPT).read_text())
    assert 0 < len(noted["turns"]) <= 12
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "a" / "second", report=again)
    assert ASKING not in again.labels  # from the cache
    shutil.rmtree(tmp_path / "a" / "cache")
    monkeypatch.setattr(chatting, "plain_answers", lambda *_, **__: pytest.fail("asked again"))
    train(recipe, tmp_path / "a" / "second", resume=True, report=resumed)
    found = load_file(tmp_path / "a" / "second" / "model" / "model.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_another_language_model_is_asked_anew(language_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(chatting, "plain_questions", lambda: plain_questions()[:3])
    asked = []
    monkeypatch.setattr(chatting, "LONGEST", 6)
    for family, more in (("llama", []), ("llama", ["llm.low_rank.rank=2"]), ("llama_tied", [])):
        overrides = [*SMALL, f"llm.checkpoint={language_checkpoint(family)}", "data.text_share=0.3", *more]
        recipe = load_recipe(Recipe, "tiny", overrides)
        model, tokenizer = fresh(recipe)
        report, folder = Keeps(), tmp_path / f"{family}{len(more)}"
        folder.mkdir()
        one = {"cache": tmp_path / "cache", "ranks": Distributed(), "report": report}
        chat = chatting.plain_chat(recipe, model, tokenizer, folder, **one)
        assert chat is not None
        assert model.training
        asked.append(ASKING in report.labels)
        assert chatting.plain_chat(recipe, model, tokenizer, folder, **one) == chat
    assert asked == [True, False, True]  # adapters that have learned nothing change nothing


def test_a_run_that_is_killed_while_it_asks_goes_on(language_checkpoint, tmp_path, monkeypatch):
    """Every question is asked once; what is kept of another model, or cut short, is of no use."""
    overrides = [*SMALL, f"llm.checkpoint={language_checkpoint('llama')}", "data.text_share=0.3"]
    recipe = load_recipe(Recipe, "tiny", overrides)
    model, tokenizer = fresh(recipe)
    asked: list[str] = []

    def answers(model, tokenizer, questions, **_):
        asked.extend(questions)
        return [f"an answer to {question}" for question in questions]

    monkeypatch.setattr(chatting, "plain_answers", answers)
    monkeypatch.setattr(chatting, "plain_questions", lambda: plain_questions()[:10])
    monkeypatch.setattr(chatting, "BATCH", 4)
    partial, more = tmp_path / chatting.PARTIAL, {"cache": tmp_path / "cache", "ranks": Distributed()}
    with pytest.raises(Interrupted):
        chatting.plain_chat(recipe, model, tokenizer, tmp_path, **more, report=Keeps(ASKING))
    assert len(json.loads(partial.read_text())["answers"]) == len(asked) == 4
    begun = partial.read_text()
    chat = chatting.plain_chat(recipe, model, tokenizer, tmp_path, **more)
    assert chat is not None
    assert asked == plain_questions()[:10] == [turn.question for turn in chat.turns]
    assert not partial.exists()
    for spoilt in (begun.replace('"longest": 48', '"longest": 47'), begun[:-9], "[]"):
        assert spoilt != begun
        partial.write_text(spoilt)
        (tmp_path / KEPT).unlink()
        shutil.rmtree(tmp_path / "cache")
        asked.clear()
        assert chatting.plain_chat(recipe, model, tokenizer, tmp_path, **more) == chat
        assert len(asked) == 10


def test_a_model_that_says_nothing_is_told(language_checkpoint, tmp_path, monkeypatch):
    overrides = [*SMALL, f"llm.checkpoint={language_checkpoint('llama')}", "data.text_share=0.3"]
    recipe = load_recipe(Recipe, "tiny", overrides)
    monkeypatch.setattr(chatting, "plain_answers", lambda model, tokenizer, questions, **_: [""] * len(questions))
    with pytest.raises(AstreaError, match="nothing that could be learned"):
        chatting.plain_chat(recipe, *fresh(recipe), tmp_path, cache=tmp_path / "cache", ranks=Distributed())
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_cannot_be_is_refused(language_checkpoint):
    with pytest.raises(AstreaError, match="text_share is of language models with a checkpoint"):
        load_recipe(Recipe, "tiny", ["data.text_share=0.1"])
    overrides = [*SMALL, f"llm.checkpoint={language_checkpoint('llama')}", "data.text_share=0.3"]
    recipe = load_recipe(Recipe, "tiny", overrides)
    check_plans(recipe, Distributed(world=2))
    with pytest.raises(AstreaError, match=r"tune\.batch is 4, 2 of it may be plain chat: .* by 3 processes"):
        check_plans(recipe, Distributed(world=3))


def test_an_estimate_counts_the_same_rows(language_checkpoint):
    overrides = [*SMALL, f"llm.checkpoint={language_checkpoint('llama')}", "data.text_share=0.5"]
    ctx = fake_context(load_recipe(Recipe, "tiny", overrides))
    assert len(pictureless(fusing(ctx, "tune").batch(0, 0, 4))) == 2


@pytest.mark.parametrize(
    ("answer", "cut", "kept"),
    [
        ("It is a cat. It sits on the", True, "It is a cat."),
        ("It is a cat. It sits on the", False, "It is a cat. It sits on the"),
        ("a cat that sits", True, "a cat that sits"),
        ("Yes! No", True, "Yes!"),
        ("1. A violin.\n\n2.", True, "1. A violin."),
    ],
)
def test_an_answer_that_was_cut_ends_with_a_sentence(answer, cut, kept):
    assert whole_sentences(answer, cut=cut) == kept
