"""Packing a finished run as the model that ships, and getting the same model back."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from astrea import AstreaError
from astrea.cli.actions import ask
from astrea.common.files import sha256_file
from astrea.confidence.agreement import save_agreement
from astrea.confidence.estimator import save_estimator
from astrea.experts.word_agreement import learn_agreement
from astrea.model.components import CARD, LANGUAGE, save_component
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Data, Recipe, World
from astrea.training.assembly import assemble
from astrea.world import bundle as writing
from astrea.world import bundled as shipping
from astrea.world.bundle import FILES, bundle, how_to_make
from astrea.world.bundled import load_bundled
from astrea.world.confidence import fit_estimator
from astrea.world.dataset import features_of, scenes_of
from astrea.world.evaluation.tasks import TASKS
from astrea.world.scenes.draw import split_scene

FEW = Data(test_questions=2, test_captions=2, test_retrieval_groups=1)
QUESTION = "how many suns are there?"
ALPHA = "model.fusion.residual.alpha"


@pytest.fixture(scope="module")
def small(small_overrides: list[str]) -> Recipe:
    return load_recipe(Recipe, "tiny", small_overrides)


@pytest.fixture(scope="module")
def components(small: Recipe) -> Path:
    return Path(small.pretrain)


@pytest.fixture(scope="module")
def finished(small: Recipe, components: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it: what it learned is random, and so are its scores."""
    folder = tmp_path_factory.mktemp("finished")
    model, tokenizer = assemble(small, components)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.startswith("model.experts.") and tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.05)
    model.eval().save_pretrained(folder / "model")
    image_processor = AstreaImageProcessor(image_size=small.world.canvas)
    AstreaProcessor(image_processor, tokenizer, model.num_visual_tokens).save_pretrained(folder / "model")
    (folder / "recipe.yaml").write_text(dump_recipe(small))
    tasks = {
        task: {"metric": "m", "score": 90.0 + i, "blind": 10.0 + i, "n": 4, "secondary": {"other": 1.0}}
        for i, task in enumerate(TASKS)
    }
    results = {"schema": 1, "average": 95.5, "blind_average": 15.5, "tasks": tasks}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def packed(finished: Path, components: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "deep" / "model"
    bundle(finished, out, commit="abc1234", components=components, subset=FEW)
    return out


@pytest.fixture
def mine(packed: Path, tmp_path: Path) -> Path:
    """A copy of the packed folder, to be spoilt."""
    return Path(shutil.copytree(packed, tmp_path / "mine"))


@pytest.fixture
def other_parts(components: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of the parts of which one (named) has other weights than it had, and a card that says so."""

    def make(name: str) -> Path:
        folder = Path(shutil.copytree(components, tmp_path / f"other {name}"))
        path = folder / f"{name}.safetensors"
        tensors = load_file(path)
        first = next(key for key, tensor in tensors.items() if tensor.is_floating_point())
        tensors[first] = tensors[first] + 0.01
        save_file(tensors, path)
        card = json.loads((folder / CARD).read_text())
        card["sha256"][name] = sha256_file(path)
        (folder / CARD).write_text(json.dumps(card))
        return folder

    return make


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# There and back


def test_every_tensor_comes_back_as_fp16_keeps_it(finished, packed, components):
    run, _ = load_model(finished / "model")
    model, _ = load_bundled(packed, components=components)
    wanted, got = run.state_dict(), model.state_dict()
    assert wanted.keys() == got.keys()
    for name, tensor in wanted.items():
        kept = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(got[name], kept), name
        assert got[name].dtype == tensor.dtype, name
    assert all(torch.equal(got[name], wanted[name]) for name in wanted if name.startswith("model.experts."))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.experts.parameters())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.language_model.config._attn_implementation == run.language_model.config._attn_implementation
    assert model.generation_config.to_dict() == run.generation_config.to_dict()


def test_the_answers_are_the_run_s_up_to_fp16(finished, packed, components, pictures):
    (run, processor), (model, its) = load_model(finished / "model"), load_bundled(packed, components=components)
    text = f"<bos><image><user>{QUESTION}<assistant>"
    inputs, others = (p(images=[[i] for i in pictures], text=[text] * len(pictures)) for p in (processor, its))
    assert all(torch.equal(inputs[name], others[name]) for name in inputs)
    with torch.no_grad():
        one, two = run(**inputs), model(**others)
    torch.testing.assert_close(two.logits.softmax(-1), one.logits.softmax(-1), atol=2e-3, rtol=0)
    torch.testing.assert_close(two.shares, one.shares, atol=2e-3, rtol=0)
    assert not torch.equal(two.logits, one.logits)


def test_the_folder_is_small_and_holds_no_expert(finished, packed):
    assert {path.name for path in packed.iterdir()} == {*FILES, "model.safetensors", CARD}
    assert all((packed / name).read_bytes() == (finished / "model" / name).read_bytes() for name in FILES)
    tensors = load_file(packed / "model.safetensors")
    assert not [name for name in tensors if name.startswith("model.experts.")]
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}


def test_loading_leaves_the_random_state_alone(packed, components):
    before = torch.get_rng_state()
    load_bundled(packed, components=components)
    assert torch.equal(torch.get_rng_state(), before)


# The card


@pytest.fixture(scope="module")
def card(packed: Path) -> dict:
    return json.loads((packed / CARD).read_text())


def test_the_card_s_command_makes_the_recipe_again(card, small):
    train, then = card["command"].split(" --out RUN && ")
    assert then == "astrea pack RUN --out FOLDER"
    astrea, command, recipe, *words = shlex.split(train)
    assert (astrea, command) == ("astrea", "train")
    made = load_recipe(Recipe, recipe, words)
    assert made == small.model_copy(update={"pretrain": "shipped"})
    assert Recipe.model_validate(card["recipe"]) == made


def test_the_card_says_what_it_scores_and_where_it_is_weak(card):
    assert (card["commit"], card["seed"], card["torch"]) == ("abc1234", 0, torch.__version__)
    scores = card["scores"]
    assert (scores["average"], scores["blind_average"]) == (95.5, 15.5)
    assert tuple(scores["tasks"]) == TASKS
    assert scores["tasks"]["counting"] == {"metric": "m", "score": 91.0, "blind": 11.0, "n": 4}
    told = " ".join(card["limits"])
    assert all(word in told for word in ("drawn scenes", "English", "64x64", "existence (90.0)", "attribute (92.0)"))
    assert "retrieval" not in told


def test_the_card_names_the_bytes_and_the_parts(card, packed, components):
    assert card["sha256"] == sha256_file(packed / "model.safetensors")
    shipped = json.loads((components / CARD).read_text())["sha256"]
    assert card["experts"] == {name: digest for name, digest in shipped.items() if name != LANGUAGE}
    assert str(components) not in (packed / CARD).read_text()


def test_the_card_s_subset_is_measured_on_the_packed_model(card, packed, components, small):
    model, processor = load_bundled(packed, components=components)
    subset = card["subset"]
    assert (subset["split"], Data.model_validate(subset["data"])) == ("test", FEW)
    again = writing.subset_scores(model, processor, small.world, FEW, report=writing.Reporter())
    assert subset["tasks"] == pytest.approx(again)
    assert tuple(again) == TASKS
    assert subset["average"] == pytest.approx(sum(again.values()) / 12)


# What cannot be packed


def test_a_run_that_is_not_finished(finished, components, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    change_json(run / "results.json", tasks={"counting": {"score": 1.0}})
    with pytest.raises(AstreaError, match=r"results\.json has no score for existence"):
        bundle(run, tmp_path / "out", commit=None, components=components)
    (run / "results.json").unlink()
    with pytest.raises(AstreaError, match=r"results\.json is missing") as caught:
        bundle(run, tmp_path / "out", commit=None, components=components)
    assert "astrea train --resume" in caught.value.hint
    with pytest.raises(AstreaError, match="no run folder"):
        bundle(tmp_path / "none", tmp_path / "out", commit=None, components=components)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something(finished, components, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(AstreaError, match="is not an empty folder"):
            bundle(finished, out, commit=None, components=components)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_experts_that_do_not_ship(finished, other_parts, tmp_path):
    with pytest.raises(AstreaError, match=r"experts\.detection\..* is not what the parts in .* hold") as caught:
        bundle(finished, tmp_path / "out", commit=None, components=other_parts("detection"))
    assert "pretrain=shipped" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_language_model_that_does_not_ship(finished, other_parts, tmp_path):
    with pytest.raises(AstreaError, match="its language model started from"):
        bundle(finished, tmp_path / "out", commit=None, components=other_parts(LANGUAGE))


def test_an_expert_that_is_no_part(components):
    with pytest.raises(AstreaError, match="'mine' is of kind 'student'"):
        shipping.expert_components({"mine": {"kind": "student"}}, components)


# What cannot be loaded


def test_tampered_weights(mine, components):
    path = mine / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(AstreaError, match=r"model\.safetensors: its sha256 is not the one that card\.json names"):
        load_bundled(mine, components=components)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(ALPHA), f"lacks tensor {ALPHA}"),
        (lambda t: t.update(x=torch.ones(1)), "unknown tensor x"),
        (lambda t: t.update({"model.experts.experts.detection.x": torch.ones(1)}), "unknown tensor model.experts"),
        (lambda t: t.update({ALPHA: torch.ones(5)}), rf"{ALPHA} is \[5\].*asks for \[4\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(mine, components, change, said):
    path = mine / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    change_json(mine / CARD, sha256=sha256_file(path))  # whoever did it minded the card
    with pytest.raises(AstreaError, match=said):
        load_bundled(mine, components=components)


def test_foreign_parts(packed, mine, other_parts, components):
    with pytest.raises(AstreaError, match=r"the part 'captioning' is not the one that .*card\.json names"):
        load_bundled(packed, components=other_parts("captioning"))
    load_bundled(packed, components=other_parts(LANGUAGE))  # which it does not need
    change_json(mine / CARD, experts=None)
    with pytest.raises(AstreaError, match="the part 'captioning' is not the one"):
        load_bundled(mine, components=components)


def test_a_part_whose_bytes_are_not_its_card_s(packed, components, tmp_path):
    mine = Path(shutil.copytree(components, tmp_path / "mine"))
    save_component(torch.nn.Linear(2, 2), mine / "detection.safetensors")
    with pytest.raises(AstreaError, match=r"detection\.safetensors: its sha256"):
        load_bundled(packed, components=mine)


@pytest.mark.parametrize("name", [CARD, "config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_missing(mine, components, name):
    (mine / name).unlink()
    with pytest.raises(AstreaError, match=f"{name} is missing"):
        load_bundled(mine, components=components)


def test_a_build_without_a_model(tmp_path):
    with pytest.raises(AstreaError, match="ships no trained model") as caught:
        load_bundled(tmp_path / "none")
    assert "astrea quickstart" in caught.value.hint


# From the command line


@pytest.fixture
def comes_with_the_package(monkeypatch, packed, components) -> None:
    monkeypatch.setattr(shipping, "load_bundled", partial(load_bundled, packed, components=components))
    monkeypatch.setattr(ask, "PHOTO_MODEL", packed / "none")  # asked where all its parts are installed


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    for index in range(3):
        Image.fromarray(split_scene("test", index, 0).image).save(folder / f"{index}.png")
    return folder


def test_two_arguments_ask_the_shipped_model(astrea, comes_with_the_package, finished, album):
    code, out, err = astrea("ask", album / "0.png", QUESTION, "--json")
    assert code == 0, err
    told = json.loads(out)
    shipped = json.loads(astrea("ask", "shipped", album / "0.png", QUESTION, "--json")[1])
    own = json.loads(astrea("ask", finished / "model", "--json", album / "0.png", QUESTION)[1])
    for one in (told, shipped, own):
        del one["seconds"]
    assert told == shipped
    assert told["shares"] == pytest.approx(own["shares"], abs=2e-3)
    assert told["masking"] != own["masking"]  # whose weights are not rounded to fp16


def test_two_arguments_retrieve_by_the_shipped_model(astrea, comes_with_the_package, album):
    code, out, err = astrea("retrieve", album, "a red sun.", "--top", 2, "--json")
    assert code == 0, err
    assert len(json.loads(out)) == 2
    assert json.loads(astrea("retrieve", "shipped", album, "a red sun.", "--top", 2, "--json")[1]) == json.loads(out)


def test_a_folder_called_shipped_goes_first(astrea, comes_with_the_package, album, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shipped").mkdir()
    code, _, err = astrea("ask", "shipped", album / "0.png", QUESTION)
    assert code == 1
    assert "shipped/config.json is missing" in err


@pytest.mark.parametrize("command", ["ask", "retrieve"])
def test_a_forgotten_or_surplus_argument_is_misuse(astrea, finished, command):
    last = {"ask": "QUESTION", "retrieve": "TEXT"}[command]
    code, _, err = astrea(command, finished / "model", "picture.png")
    assert code == 2
    assert f"Missing argument '{last}'" in err
    assert astrea(command, "one", "two", "three", "four")[0] == 2


def test_pack_as_a_command(astrea, finished, components, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "bundle", partial(bundle, components=components, subset=FEW))
    code, out, err = astrea("pack", finished, "--out", tmp_path / "out")
    assert code == 0, err
    assert "average 95.5 in the run" in out
    assert str(tmp_path / "out") in out
    load_bundled(tmp_path / "out", components=components)
    assert astrea("pack", finished, "--out", tmp_path / "out")[0] == 1
    assert astrea("pack", finished)[0] == 2
    assert "recipe photo" in " ".join(astrea("pack", "--help")[1].split())


# A run that went on from another model


def test_its_card_tells_both_commands_and_what_it_knows_of_doubt_comes_along(finished, components, small, tmp_path):
    first = Path(shutil.copytree(finished / "model", tmp_path / "first"))
    (first / "recipe.json").write_text(json.dumps(small.model_dump()))
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    going_on = small.model_copy(update={"start": str(first), "tune": small.tune.model_copy(update={"steps": 7})})
    (run / "recipe.yaml").write_text(dump_recipe(going_on))
    model, processor = load_model(run / "model")
    doubt = fit_estimator(model, processor.tokenizer, World(), pictures=8, questions=6)
    save_estimator(doubt, run / "model")
    seen = features_of(model.experts, list(scenes_of("train", 8, World())))
    save_agreement(learn_agreement(seen, {n: model.experts[n].labels for n in model.experts.names}), run / "model")
    card = bundle(run, tmp_path / "out", commit=None, components=components, subset=FEW)
    one, two, three = card["command"].split(" && ")
    assert one.endswith("--out FIRST")
    assert "FIRST/model" in two
    assert "tune.steps=7" in two
    assert three == "astrea pack RUN --out FOLDER"
    assert str(tmp_path) not in card["command"]
    assert card["start"]["sha256"] == sha256_file(first / "model.safetensors")
    before = Recipe.model_validate(card["start"]["recipe"])
    assert how_to_make(Recipe.model_validate(card["recipe"]), before) == card["command"]
    packed, _ = load_bundled(tmp_path / "out", components=components)
    assert packed.confidence_estimator is not None
    assert packed.confidence_estimator.familiar.keys() == doubt.familiar.keys()
    assert packed.confidence_estimator.calibration is not None
    assert packed.model.word_agreement is not None
