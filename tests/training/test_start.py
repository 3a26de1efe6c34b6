"""Going on from a finished model: its weights are the start, another recipe's model is refused, words are learned."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.language.low_rank import adapter_parameters
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble_with_reference
from astrea.training.start import beginning


@pytest.fixture(scope="module")
def small(small_overrides: list[str]) -> Recipe:
    return load_recipe(Recipe, "tiny", small_overrides)


@pytest.fixture(scope="module")
def finished(small: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as training leaves it, with weights of its own."""
    folder = tmp_path_factory.mktemp("finished")
    model, tokenizer, _ = assemble_with_reference(small, Path(small.pretrain))
    with torch.no_grad():
        next(iter(model.alignment.state_dict().values())).add_(0.25)
    model.eval().save_pretrained(folder)
    processor = AstreaProcessor(AstreaImageProcessor(small.world.canvas), tokenizer, model.num_visual_tokens)
    processor.save_pretrained(folder)
    return folder


def test_it_starts_where_the_other_run_ended(small, finished):
    made = beginning(small.model_copy(update={"start": str(finished)}), None)
    fresh = assemble_with_reference(small, Path(small.pretrain))
    first = next(iter(made.model.alignment.state_dict()))
    assert not torch.equal(made.model.alignment.state_dict()[first], fresh.model.alignment.state_dict()[first])
    torch.testing.assert_close(
        made.model.alignment.state_dict()[first], fresh.model.alignment.state_dict()[first] + 0.25
    )
    assert len(made.tokenizer) == len(fresh.tokenizer)


@pytest.mark.parametrize("share", ["paraphrases", "unanswerable"])
def test_with_other_words_it_learns_theirs(small, finished, share):
    data = small.data.model_copy(update={share: 0.5})
    for start in (None, str(finished)):
        made = beginning(small.model_copy(update={"data": data, "start": start}), Path(small.pretrain))
        rows = len(made.model.get_input_embeddings().weight)
        assert rows == len(made.tokenizer) == made.model.config.text_config.vocab_size
        assert "cannot" in made.tokenizer.get_vocab()


def test_a_model_whose_low_rank_adapters_were_merged_gets_fresh_ones(small_overrides, finished, tmp_path):
    made = beginning(
        load_recipe(Recipe, "tiny", [*small_overrides, f"start={finished}", "llm.low_rank={rank: 2}"]), None
    )
    assert made.model.config.low_rank["rank"] == 2
    learn = [name for name, _ in adapter_parameters(made.model.language_model)]
    assert learn
    # They change nothing until they learn, and are kept with the model, if the recipe says so.
    before, _ = load_model(finished)
    ids = torch.arange(5)[None]
    expected = before.language_model(input_ids=ids).logits
    torch.testing.assert_close(made.model.language_model(input_ids=ids).logits, expected)
    made.model.save_pretrained(tmp_path)
    tokenizer_of(finished, tmp_path)
    other = load_recipe(Recipe, "tiny", [*small_overrides, f"start={tmp_path}", "llm.low_rank={rank: 3}"])
    with pytest.raises(AstreaError, match="has low_rank="):
        beginning(other, None)


def tokenizer_of(folder: Path, other: Path) -> None:
    """Put a model folder's processor beside another model."""
    for file in folder.iterdir():
        if not (other / file.name).exists():
            shutil.copy(file, other / file.name)


def test_another_recipe_s_model_is_refused(small, finished):
    other = small.model_copy(update={"start": str(finished), "model": small.model.model_copy(update={"mixer": False})})
    with pytest.raises(AstreaError, match="has fusion=") as caught:
        beginning(other, None)
    assert "astrea recipe show" in caught.value.hint


def test_the_key_that_makes_an_expert_the_same_is_said(small, small_overrides, finished):
    other = load_recipe(Recipe, "tiny", [*small_overrides, "experts.detection.options={threshold: 0.5}"])
    with pytest.raises(AstreaError, match=r"has experts\.detection=") as caught:
        beginning(other.model_copy(update={"start": str(finished)}), None)
    assert f"astrea recipe show {finished}" in caught.value.hint
    said = next(word for word in shlex.split(caught.value.hint) if word.startswith("experts.detection=")).rstrip(",")
    same = load_recipe(Recipe, "tiny", [*small_overrides, "experts.detection.options={threshold: 0.5}", said])
    assert beginning(same.model_copy(update={"start": str(finished)}), None)


def test_a_model_from_before_the_residual_s_schedule_was_written_down(small, finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "old"))
    config = json.loads((folder / "config.json").read_text())
    assert config["fusion"].pop("residual_start") == 1.0
    assert config["fusion"].pop("residual_end") == 0.85
    (folder / "config.json").write_text(json.dumps(config))
    model, _ = load_model(folder)
    assert model.fusion.schedule == (1.0, 0.85)
    made = beginning(small.model_copy(update={"start": str(folder)}), None)
    assert torch.equal(made.model.fusion.residual.alpha, model.fusion.residual.alpha)
    other = small.model.model_copy(update={"residual_end": 0.5})
    with pytest.raises(AstreaError, match="has fusion="):
        beginning(small.model_copy(update={"start": str(folder), "model": other}), None)


def test_no_such_model(small, tmp_path):
    with pytest.raises(AstreaError, match="nowhere"):
        beginning(small.model_copy(update={"start": str(tmp_path / "nowhere")}), None)


def test_a_recipe_that_says_nothing_of_it_is_written_as_before(small, tmp_path):
    assert not {"start", "paraphrases", "unanswerable"} & {*small.model_dump(), *small.model_dump()["data"]}
    told = small.model_copy(update={"start": "shipped", "data": small.data.model_copy(update={"unanswerable": 0.25})})
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(told))
    again = load_recipe(Recipe, str(path))
    assert (again.start, again.data.unanswerable, again.data.paraphrases) == ("shipped", 0.25, 0.0)


def test_one_s_own_data_has_no_such_questions():
    with pytest.raises(AstreaError, match="of the world's questions"):
        load_recipe(Recipe, "tiny", ["data.train=mine.jsonl", "data.paraphrases=0.5"])
