"""A folder of what a run learned: small, answers as the run's own model does, and is read as anybody's."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.language import checkpoint
from astrea.model.explanation import explain
from astrea.model.loading import LEARNED, load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.learned import ABOUT, load_learned
from astrea.training.trainer import train
from astrea.training.write_learned import write_learned
from gguf_files import original_model, write_gguf

PACKAGE = "small_language_model"
STEPS = ["align.steps=2", "align.progressive=false", "fuse.steps=1", "tune.steps=6", "tune.lr=0.03", "tune.warmup=1"]
STEPS += ["model.agreement=true"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """The user's, in which the language model is dequantised once."""
    folder = tmp_path_factory.mktemp("xdg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "astrea"


@pytest.fixture(scope="module")
def run(small_overrides, tmp_path_factory, cache) -> Path:
    """A finished run of low rank on a language model out of an installed package."""
    packages = tmp_path_factory.mktemp("packages")
    (packages / PACKAGE).mkdir()
    (packages / PACKAGE / "__init__.py").write_text("raise SystemExit('never imported')")
    write_gguf(packages / PACKAGE / "small.gguf", original_model())
    low_rank = "llm.low_rank={rank: 2, alpha: 8}"
    recipe = load_recipe(Recipe, "tiny", [*small_overrides, *STEPS, f"llm.checkpoint=package:{PACKAGE}", low_rank])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(packages), *sys.path])
        folder = tmp_path_factory.mktemp("runs") / "run"
        train(recipe, folder)
        yield folder


@pytest.fixture(scope="module")
def learned(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "model"
    write_learned(run, folder)
    return folder


@pytest.fixture
def copied(learned, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(learned, tmp_path / "copied")


def pictures(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(count)]


def test_how_experts_agree_comes_along(run, learned):
    for folder in (run / "model", learned):
        assert load_model(folder)[0].model.word_agreement is not None
        assert json.loads((folder / "config.json").read_text())["agreement"] is True


def test_it_answers_as_the_runs_own_model_does(run, learned):
    whole, processor = load_model(run / "model")
    small, own = load_model(learned)
    assert small.config.low_rank is None  # merged, as the recipe says
    assert own.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert own.tokenizer.chat_template == processor.tokenizer.chat_template
    start = original_model().model.layers[0].self_attn.q_proj.weight
    q_proj = "model.layers.0.self_attn.q_proj.weight"
    there, here = (model.language_model.get_parameter(q_proj).detach() for model in (whole, small))
    assert (there - start).abs().max() > 100 * (there - here).abs().max() > 0  # it learned, and fp16 lost little of it
    for picture in pictures(3):
        one, other = (explain(m, p, picture, "what is it?", longest=6) for m, p in ((whole, processor), (small, own)))
        assert one.answer == other.answer
        assert other.probability == pytest.approx(one.probability, rel=0.05)
        assert other.shares == pytest.approx(one.shares, abs=0.01)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        torch.testing.assert_close(whole(input_ids=ids).logits, small(input_ids=ids).logits, atol=0.05, rtol=0)


def test_loading_reads_no_plain_sentences(learned, monkeypatch):
    """They are for comparing before and after training."""
    monkeypatch.setattr(checkpoint, "reference_outputs", lambda *_: pytest.fail("they were read"))
    load_model(learned)


def test_it_holds_nothing_that_packages_have(run, learned):
    held, whole = load_file(learned / LEARNED), load_file(run / "model" / "model.safetensors")
    assert not any("embed_tokens" in name or "base_layer" in name for name in held)
    assert {name for name in held if ".lora_" in name}
    assert all(tensor.dtype == torch.float16 for tensor in held.values() if tensor.is_floating_point())
    # The run's experts are other ones than the package's, so they are learned too.
    expert = "model.experts.experts.detection."
    assert {name for name in held if name.startswith(expert)} <= {name for name in whole if name.startswith(expert)}
    assert any(name.startswith(expert) for name in held)


def test_what_its_recipe_names_is_in_packages(copied):
    def with_recipe(**changes: object) -> None:
        recipe = json.loads((copied / "recipe.json").read_text())
        for key, value in changes.items():
            part, _, name = key.partition("__")
            recipe[part] = {**recipe[part], name: value} if name else value
        (copied / "recipe.json").write_text(json.dumps(recipe))

    whole = (copied / "recipe.json").read_text()
    elsewhere = {"detection": {"kind": "detection", "checkpoint": "owner/name", "revision": "1" * 40}}
    code = {"detection": {"kind": "os:system"}}
    for changes, said in (
        ({"llm__checkpoint": "/etc/model.gguf"}, "of no pinned package"),
        ({"llm__checkpoint": "owner/name", "llm__revision": "1" * 40}, "of no pinned package"),
        ({"llm__revision": None}, "of no pinned package"),
        ({"experts": elsewhere}, "comes from no package"),
        ({"experts": code}, "comes from no package"),
        ({"start": "/etc"}, "went on from another model"),
        ({"model": {"strategy": "os:system"}}, "'os:system', code of another package"),
        ({"model__adapter_hidden": 1 << 20}, "adapter_hidden=24, and the recipe asks for 1048576"),
        ({"llm__revision": "0" * 64}, "sha256"),
        ({"llm": 3}, "is no recipe"),
    ):
        (copied / "recipe.json").write_text(whole)
        with_recipe(**changes)
        with pytest.raises(AstreaError, match=said):
            load_model(copied)


def test_a_damaged_file_is_named(copied):
    tensors, about = load_file(copied / LEARNED), json.loads((copied / ABOUT).read_text())
    some = next(name for name in tensors if name.startswith("model.fusion."))

    def refused(said: str, changed: dict[str, torch.Tensor]) -> None:
        save_file(changed, copied / LEARNED)
        (copied / ABOUT).write_text(json.dumps(about | {"sha256": sha256_file(copied / LEARNED)}))
        with pytest.raises(AstreaError, match=said):
            load_model(copied)

    refused(f"lacks tensor {some}", {name: tensor for name, tensor in tensors.items() if name != some})
    refused("tensor other is", tensors | {"other": torch.zeros(1)})
    refused(f"tensor {some} is", tensors | {some: torch.zeros(3, 3, 3, 3)})
    refused("NaN or infinity", tensors | {some: torch.full_like(tensors[some], torch.nan)})
    save_file(tensors, copied / LEARNED, metadata={"another": "file"})
    (copied / ABOUT).write_text(json.dumps(about | {"sha256": "0"}))
    with pytest.raises(AstreaError, match=r"is not the file that learned\.json names"):
        load_model(copied)
    (copied / LEARNED).write_bytes(b"\x00" * 64)
    with pytest.raises(AstreaError, match=f"{LEARNED} is damaged"):
        load_model(copied)
    (copied / "recipe.json").unlink()
    with pytest.raises(AstreaError, match=r"recipe\.json is missing"):
        load_model(copied)


def test_a_configuration_is_held_against_the_file(copied):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 100_000
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(AstreaError, match="many more parts"):
        load_model(copied)


def test_what_has_to_be_installed_is_named(copied, monkeypatch):
    about = json.loads((copied / ABOUT).read_text())
    (copied / ABOUT).write_text(json.dumps(about | {"experts": about["experts"] | {"detection": "0"}}))
    with pytest.raises(AstreaError, match="the expert 'detection' of the installed package astrea-vlm is not the one"):
        load_model(copied)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(AstreaError, match="peft") as told:
        load_model(copied)
    assert "pip install" in told.value.hint


def test_only_a_finished_run_of_packages_is_written(run, tmp_path, small_recipe):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(AstreaError, match="is not an empty folder"):
        write_learned(run, tmp_path / "full")
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(run / "recipe.yaml", begun)
    with pytest.raises(AstreaError, match="is not finished"):
        write_learned(begun, tmp_path / "out")
    shutil.copy(small_recipe, begun / "recipe.yaml")
    with pytest.raises(AstreaError, match="of no pinned package"):
        write_learned(begun, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_language_model_is_kept_for_the_next_time(learned, cache):
    before = sorted(path.name for path in cache.iterdir())
    load_learned(learned)
    assert sorted(path.name for path in cache.iterdir()) == before
    assert len(before) == 1
