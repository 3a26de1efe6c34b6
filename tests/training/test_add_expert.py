"""An expert joins a trained model by alignment alone: it learns, it is quiet, and nothing else changes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from astrea import AstreaError
from astrea.cli import app
from astrea.cli.actions.add_expert import parsed
from astrea.common.folder_lock import LOCK
from astrea.common.progress import Reporter
from astrea.evaluation.generate import Predictor
from astrea.experts.word_agreement import learn_agreement
from astrea.fusion.expand import EXPERT_AXES, expanded_tensor
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import ExpertEntry, Recipe
from astrea.training.add_expert import AddedExpert, add_expert, expand, root
from astrea.training.losses.words import WordContrast
from astrea.training.run_folder import locked_folder
from astrea.world.dataset import features_of, scenes_of
from astrea.world.scenes.captions import captions
from listening import Said
from repository import EXAMPLES

PALETTE = ExpertEntry(kind="palette_expert:PaletteExpert", options={"threshold": 0.01})
SHARE = 0.04
SETTINGS = [
    "threads=1",
    "data.train_scenes=40",
    "data.questions_per_scene=4",
    "align.batch=8",
    "align.steps=15",
    "align.warmup=3",
]


@pytest.fixture(scope="module", autouse=True)
def examples_on_path() -> Iterator[None]:
    """As PYTHONPATH=docs/examples does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield
    sys.modules.pop("palette_expert", None)


@pytest.fixture(scope="module")
def run() -> Recipe:
    return load_recipe(Recipe, "tiny", SETTINGS)


@pytest.fixture(scope="module")
def joined(tiny_model, tiny_processor, run, tmp_path_factory) -> tuple[AddedExpert, Path, Said]:
    folder, report = tmp_path_factory.mktemp("join") / "model", Said()
    made = add_expert(tiny_model, tiny_processor, run, "palette", PALETTE, folder, share=SHARE, report=report)
    return made, folder, report


@pytest.fixture(scope="module")
def asked(run, joined) -> tuple[list[str], dict]:
    """Questions about pictures, with what all five experts saw of them."""
    scenes = list(scenes_of("test", 6, run.world))
    questions = ["what colour is the cat?", "how many umbrellas are there?", "is there a red sun?"] * 2
    return questions, features_of(joined[0].model.experts, scenes)


def shares(model, tokenizer, asked) -> torch.Tensor:
    predictor = Predictor(model, tokenizer)
    prompts = predictor.prompts(asked[0], pictures=True)
    return model.shares(**prompts, features=asked[1], present=predictor.present(len(asked[0])))


def test_what_was_there_is_bit_equal(tiny_model, joined):
    state = joined[0].model.state_dict()
    expanded = {f"model.fusion.{name}" for name in EXPERT_AXES}
    for name, tensor in tiny_model.state_dict().items():
        if name in expanded:
            places = expanded_tensor(torch.ones_like(tensor), EXPERT_AXES[name.removeprefix("model.fusion.")], 0.0)
            kept = places.bool()
            assert torch.equal(state[name][kept], tensor.flatten()), name
        elif state[name].shape != tensor.shape:
            assert name.endswith(("embed_tokens.weight", "lm_head.weight")), name
            assert torch.equal(state[name][: len(tensor)], tensor), name
        else:
            assert torch.equal(state[name], tensor), name


def test_how_the_others_agree_stays_known(tiny_model, tiny_processor, run, monkeypatch):
    seen = features_of(tiny_model.experts, list(scenes_of("train", 8, run.world)))
    labels = {name: tiny_model.experts[name].labels for name in tiny_model.experts.names}
    agreement = learn_agreement(seen, labels)
    monkeypatch.setattr(tiny_model.model, "word_agreement", agreement)
    monkeypatch.setattr(tiny_model.config, "agreement", True)
    new, _ = expand(tiny_model, tiny_processor.tokenizer, "palette", PALETTE)
    assert new.model.word_agreement is agreement
    assert new.config.agreement


def test_only_the_adapter_has_learned(tiny_model, tiny_processor, joined, run):
    fresh, _ = expand(tiny_model, tiny_processor.tokenizer, "palette", PALETTE, seed=run.seed)
    state = joined[0].model.state_dict()
    moved = {name for name, tensor in fresh.state_dict().items() if not torch.equal(state[name], tensor)}
    learned = {name for name in moved if name.startswith("model.alignment.adapters.palette.")}
    assert learned
    assert moved - learned == {"model.fusion.allocator.load_bias", "model.fusion.allocator.load"}


@torch.no_grad()
def word_loss(model, tokenizer, run) -> float:
    """How badly the newcomer's tokens say the words of the captions that it was aligned with."""
    scenes = list(scenes_of("train", run.data.train_scenes, run.world))
    told = [tokenizer(captions(scene, 1, i)[0], add_special_tokens=False).input_ids for i, scene in enumerate(scenes)]
    matrix = model.alignment({"palette": features_of(model.experts, scenes)["palette"]})
    contrast = WordContrast(told, len(tokenizer))
    return float(contrast(matrix.tokens, matrix.valid, told, model.get_input_embeddings().weight))


def test_it_learns_to_say_what_captions_say(tiny_model, tiny_processor, joined, run):
    fresh, tokenizer = expand(tiny_model, tiny_processor.tokenizer, "palette", PALETTE, seed=run.seed)
    assert word_loss(joined[0].model, tokenizer, run) < word_loss(fresh, tokenizer, run)


def test_one_at_a_time_and_no_lock_is_left_in_a_model(joined, tiny_model, tiny_processor, run, tmp_path):
    assert not (joined[1] / LOCK).exists()
    with (
        locked_folder(tmp_path / "model", report=Said(), leaves_lock=False),
        pytest.raises(AstreaError, match="another run is at work"),
    ):
        add_expert(tiny_model, tiny_processor, run, "palette", PALETTE, tmp_path / "model", report=Said())


def test_what_learns_is_said(joined):
    (line,) = joined[2].lines
    learns, frozen = line.split("; frozen: the other ")
    assert re.fullmatch(r"join/palette learns: adapter of palette [0-9.]+k", learns)  # and no other part is named
    assert re.fullmatch(r"[0-9.]+M", frozen)


def test_the_share_is_as_asked_and_the_others_share_the_rest_as_before(tiny_model, tiny_processor, joined, asked):
    assert joined[0].share == pytest.approx(SHARE, abs=1e-3)
    before = shares(tiny_model, tiny_processor.tokenizer, asked)
    after = shares(joined[0].model, joined[0].tokenizer, asked)
    others = after[:, :-1]
    # Trust judges by rounded numbers, too; the shares of those that it believes are what is compared.
    before, others = (shares / shares.sum(1, keepdim=True) for shares in (before, others))
    torch.testing.assert_close(others, before, atol=1e-4, rtol=1e-3)
    assert (after[:, -1] > 0).all()
    assert after[:, -1].mean() < 3 * SHARE


def test_without_the_newcomer_answers_are_the_old_ones(tiny_model, tiny_processor, joined, asked):
    questions, features = asked
    pictures = torch.arange(len(questions))
    before = Predictor(tiny_model, tiny_processor.tokenizer).answer(questions, features, pictures)
    after = Predictor(joined[0].model, joined[0].tokenizer, masked=["palette"]).answer(questions, features, pictures)
    assert after.texts == before.texts
    torch.testing.assert_close(after.shares[:, :-1], before.shares, atol=1e-5, rtol=1e-4)


def test_the_model_folder_is_whole(tiny_model, joined, asked):
    made, folder, _ = joined
    with pytest.raises(AstreaError, match="trust_remote_code"):
        load_model(folder)
    model, processor = load_model(folder, trust_remote_code=True)
    assert processor.num_visual_tokens == tiny_model.num_visual_tokens + 8
    assert len(processor.tokenizer) == len(made.tokenizer)
    torch.testing.assert_close(shares(model, processor.tokenizer, asked), shares(made.model, made.tokenizer, asked))
    assert json.loads((folder / "join.json").read_text())["expert"]["palette"]["kind"] == PALETTE.kind
    assert model.config.fusion["joined"] == ["palette"]


def test_another_one_can_join_after_it(joined, run, tmp_path):
    first, folder, _ = joined
    model, processor = load_model(folder, trust_remote_code=True)
    entry = ExpertEntry(kind=PALETTE.kind, options={"threshold": 0.1})
    second = add_expert(model, processor, run, "bold", entry, tmp_path / "six", share=0.02, report=Reporter())
    assert second.model.experts.names == [*first.model.experts.names, "bold"]
    assert second.words == 0
    assert second.share == pytest.approx(0.02, abs=1e-3)
    assert second.model.config.fusion["joined"] == ["palette", "bold"]
    assert torch.equal(second.model.experts["palette"].anchors, first.model.experts["palette"].anchors)


def test_the_same_recipe_gives_the_same_bits(tiny_model, tiny_processor, joined, run, tmp_path):
    again = add_expert(
        tiny_model, tiny_processor, run, "palette", PALETTE, tmp_path / "again", share=SHARE, report=Said()
    )
    state = joined[0].model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.model.state_dict().items())


def test_a_built_in_expert_comes_with_its_pretrained_weights(tiny_model, tiny_processor):
    from astrea.model.components import BUNDLED

    entry = ExpertEntry(kind="detection")
    one, two = (
        expand(tiny_model, tiny_processor.tokenizer, "again", entry, components=parts, seed=1)[0]
        .experts["again"]
        .state_dict()
        for parts in (BUNDLED, None)
    )
    assert any(not torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "changes", "share", "said"),
    [
        ("detection", [], 0.03, "already has an expert"),
        ("Photo.1", [], 0.03, "no name for an expert"),
        ("palette", ["align.steps=0"], 0.03, "align.steps"),
        ("palette", ["world.canvas=96"], 0.03, "world.canvas=64"),
        ("palette", [], 0.0, "share"),
    ],
)
def test_what_cannot_be_is_said_at_once(tiny_model, tiny_processor, tmp_path, name, changes, share, said):
    recipe = load_recipe(Recipe, "tiny", [*SETTINGS, *changes])
    with pytest.raises(AstreaError, match=said):
        add_expert(tiny_model, tiny_processor, recipe, name, PALETTE, tmp_path / "out", share=share, report=Reporter())


def test_a_folder_in_use_is_left_alone(tiny_model, tiny_processor, run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(AstreaError, match="not an empty folder"):
        add_expert(tiny_model, tiny_processor, run, "palette", PALETTE, tmp_path, report=Reporter())


def test_from_the_command_line(tiny_folder, tmp_path):
    out = tmp_path / "five"
    words = ["add-expert", str(tiny_folder), "--expert", f"palette={PALETTE.kind}", "--option", "threshold=0.02"]
    result = CliRunner().invoke(app, [*words, "--out", str(out), *SETTINGS])
    assert result.exit_code == 0, result.output
    assert "palette was added: gate weight 0.10%" in result.output
    model, _ = load_model(out, trust_remote_code=True)
    assert model.experts["palette"].threshold == 0.02


@pytest.mark.parametrize(
    ("given", "said"), [(["--expert", "palette"], "NAME=KIND"), (["--expert", "a=b:c", "--option", "x"], "KEY=VALUE")]
)
def test_a_command_line_that_says_too_little(tiny_folder, tmp_path, given, said):
    result = CliRunner().invoke(app, ["add-expert", str(tiny_folder), *given, "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, AstreaError)
    assert said in str(result.exception)


def test_options_are_read_as_yaml():
    assert dict(map(parsed, ["a=3", "b=x", "c=[1, 2]", "d=1.5"])) == {"a": 3, "b": "x", "c": [1, 2], "d": 1.5}
    assert parsed("e=on") == ("e", "on")  # as in a recipe
    for wrong in ("a=[1", "a=!!python/name:os.system", "a={b: 1, b: 2}"):
        with pytest.raises(AstreaError, match=f"--option '{re.escape(wrong)}'"):
            parsed(wrong)


def test_root_of_a_rising_function():
    assert root(lambda x: x - 1.25) == pytest.approx(1.25)
