"""What a language model has forgotten: plain facts without a picture, before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from astrea.common.progress import Reporter
from astrea.evaluation.evaluate import about_run
from astrea.evaluation.forgetting import KEPT, compare, recall
from astrea.language.facts import FACTS, is_recalled
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.report.results import Forgetting
from astrea.report.summary import forgetting_text
from astrea.training.assembly import assemble_with_reference
from astrea.training.trainer import train
from shared_models import SMALL


@pytest.fixture(scope="module")
def recipe(language_checkpoint) -> Recipe:
    return load_recipe(Recipe, "tiny", [*SMALL, f"llm.checkpoint={language_checkpoint('llama')}"])


def test_nothing_learned_nothing_forgotten(recipe):
    made = assemble_with_reference(recipe, None)
    made.model.train()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    before = recall(made.model, made.tokenizer)
    assert made.model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert len(before.losses) == len(before.answers) == len(FACTS) == 10
    found = Forgetting.model_validate(compare(before, recall(made.model, made.tokenizer)))
    assert found.change == 0
    assert found.same == found.questions == 10
    assert "(+0%)" in found.sentence()


def test_what_is_lost_is_measured_question_by_question(recipe):
    """The loss is that of the right answer behind the chat template's question, its end mark included."""
    made = assemble_with_reference(recipe, None)
    before = recall(made.model, made.tokenizer)
    with torch.no_grad():
        for name, parameter in made.model.language_model.named_parameters():
            if "mlp" in name:
                parameter.mul_(-1)
    after = recall(made.model, made.tokenizer)
    found = compare(before, after)
    assert found["loss_before"] == pytest.approx(sum(before.losses) / 10)
    assert found["loss_after"] != pytest.approx(found["loss_before"], abs=1e-3)
    assert found["same"] == sum(first == last for first, last in zip(before.answers, after.answers, strict=True)) < 10
    assert [row["question"] for row in found["answers"]] == [fact.question for fact in FACTS]
    assert all(row["loss_before"] != row["loss_after"] for row in found["answers"])
    chat = [{"role": "user", "content": FACTS[0].question}, {"role": "assistant", "content": FACTS[0].answer}]
    asked = made.tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    whole = made.tokenizer.apply_chat_template(chat, tokenize=False)
    ids = made.tokenizer(whole, add_special_tokens=False, return_tensors="pt").input_ids
    start = len(made.tokenizer(asked, add_special_tokens=False).input_ids)
    made.model.eval()
    with torch.no_grad():
        logits = made.model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[0, start - 1 : -1], ids[0, start:])
    assert after.losses[0] == pytest.approx(float(loss), abs=1e-3)


@pytest.mark.parametrize(
    ("said", "right"),
    [("The capital is Paris.", True), ("paris", True), ("Comparison", False), ("Parisian cats", False), ("", False)],
)
def test_an_answer_is_right_that_holds_the_word(said, right):
    assert is_recalled(FACTS[0], said) is right


def test_a_run_notes_it_and_its_results_say_it(recipe, tmp_path: Path):
    """Only where the language model is a checkpoint."""

    class Keeps(Reporter):
        def __init__(self) -> None:
            self.said: list[str] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    short = ["align.steps=0", "fuse.steps=0", "tune.steps=2", "tune.lr=0.05", "data.train_scenes=8"]
    run, report = load_recipe(Recipe, "tiny", [*SMALL, f"llm.checkpoint={recipe.llm.checkpoint}", *short]), Keeps()
    train(run, tmp_path / "run", report=report)
    noted = json.loads((tmp_path / "run" / KEPT).read_text())
    assert {"assembled", "trained", "forgetting"} <= set(noted)
    results = about_run(run, tmp_path / "run", {"seconds": {}})
    assert results["forgetting"] == noted["forgetting"]
    assert results["forgetting"]["loss_after"] != results["forgetting"]["loss_before"]
    told = forgetting_text(results)
    assert told is not None
    assert told in report.said
    assert "10 plain facts without a picture: loss" in told
    own = load_recipe(Recipe, "tiny", [*SMALL, *short, "model.pretrained_llm=false"])
    train(own, tmp_path / "own")
    assert not (tmp_path / "own" / KEPT).exists()
    assert "forgetting" not in about_run(own, tmp_path / "own", {"seconds": {}})
    assert forgetting_text({}) is None
