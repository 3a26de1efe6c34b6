"""An Astrea model with checkpoint experts: assembled, saved, loaded without the checkpoints."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from astrea import AstreaConfig, AstreaForConditionalGeneration, AstreaProcessor
from astrea.common.errors import AstreaError
from astrea.data.images import to_square_array
from astrea.experts.bank import ExpertBank, expert_specs, shared_names
from astrea.experts.pretrained.entry import resolve
from astrea.model.explanation import explain
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import LanguageModel, Recipe
from astrea.training.assembly import assemble
from astrea.world.experts.detection import DetectionExpert
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer
from expert_builders import MODELS, OPTIONS, loaded, small_checkpoint

SMALL = LanguageModel(width=32, layers=1, heads=2, feed_forward=32)


def saved(entries, folder):
    """A model of some experts, with their checkpoints' weights, and its folder."""
    from astrea.experts.pretrained.weights import load_checkpoint

    tokenizer = tiny_tokenizer()
    config = AstreaConfig(
        text_config=tiny_language_model(SMALL, tokenizer).config.to_dict(),
        experts={name: resolve(name, entry) for name, entry in entries.items()},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        attention="eager",
    )
    model = AstreaForConditionalGeneration(config).eval()
    for name, entry in entries.items():
        load_checkpoint(name, model.experts[name], entry)
    model.save_pretrained(folder)
    AstreaProcessor(AstreaImageProcessor(64), tokenizer, model.num_visual_tokens).save_pretrained(folder)
    return model


def assert_same(one: nn.Module, two: nn.Module) -> None:
    first, second = one.state_dict(), two.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        assert tensor.dtype == second[name].dtype, name
    buffers = dict(two.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in one.named_buffers())


# One of each kind computes with fewer bits; adapters and fusion beside it do not.
HALF_PRECISE = ("rt_detr_v2", "segformer", "sam", "clip", "florence2")


@pytest.mark.parametrize("half", [0, 1])
def test_every_architecture_comes_back_without_its_checkpoint(half, entry, pixels, tmp_path):
    """Weights, what is no weight, types of numbers, and what the experts say; half of all are in one model."""
    names = sorted(MODELS)[half::2]
    dtypes = {name: "bfloat16" if name in HALF_PRECISE else "float32" for name in names}
    model = saved({name: entry(name, dtype=dtypes[name]) for name in names}, tmp_path)
    again, _ = load_model(tmp_path)
    assert_same(model, again)
    assert again.dtype == torch.float32
    before, after = model.encode_images(pixels), again.encode_images(pixels)
    for name in names:
        # Weights that are read from a file lie elsewhere in memory, which may move the last bits.
        near = 1e-4 if dtypes[name] == "float32" else 0.1
        torch.testing.assert_close(
            before[name].tokens, after[name].tokens, atol=near, rtol=near, msg=lambda said, name=name: name + said
        )


def test_readings_come_back_too(entry, pixels, tmp_path):
    names = ("rt_detr_v2", "segformer", "clip", "blip")
    model = saved({name: entry(name) for name in names}, tmp_path)
    again, _ = load_model(tmp_path)
    for before, after in zip(model.experts.readings(pixels), again.experts.readings(pixels), strict=True):
        for name in names:
            assert before[name].labels == after[name].labels
            assert before[name].caption == after[name].caption
            assert before[name].scores == pytest.approx(after[name].scores, abs=1e-4)


def test_a_folder_whose_weights_do_not_fit_is_refused(entry, tmp_path):
    saved({"eye": entry("detr")}, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["experts"]["eye"]["options"]["architecture"]["d_model"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AstreaError, match="asks for"):
        load_model(tmp_path)


def test_words_longer_than_the_file_says_are_refused(entry, tmp_path):
    saved({"eye": entry("git")}, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["experts"]["eye"]["options"]["vocabulary_bytes"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AstreaError, match=r"eye\.vocabulary"):
        load_model(tmp_path)


def test_shared_tensors_are_written_once(entry, tmp_path):
    saved({"eye": entry("florence2")}, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    tables = [name for name, tensor in stored.items() if tensor.shape == (60, 16)]
    assert len(tables) == 1
    again, _ = load_model(tmp_path)
    model = again.experts["eye"].model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_sharing_is_seen_in_modules_of_ones_own():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)
            self.two = self.one
            self.three = nn.Linear(2, 2)

    assert shared_names(Twice()) == {"two.weight": "one.weight", "two.bias": "one.bias"}


# In a run


@pytest.fixture
def run(tmp_path):
    folders = {name: small_checkpoint(name, tmp_path / name) for name in ("detr", "clip", "dinov3", "git", "segformer")}
    kinds = {"detr": "detection", "clip": "classification", "dinov3": "classification", "git": "captioning"}
    kinds["segformer"] = "segmentation"
    overrides = [f"experts.{name}=null" for name in ("captioning", "classification", "segmentation")]
    for name, folder in folders.items():
        entry = {"kind": kinds[name], "checkpoint": str(folder), "options": OPTIONS[name]}
        overrides.append(f"experts.{name}={json.dumps(entry)}")
    size = "llm={width: 32, layers: 1, heads: 2, feed_forward: 32}"
    return load_recipe(Recipe, "tiny", [*overrides, size]), folders


def test_a_run_assembles_them_and_adapters_start_at_their_words(run):
    recipe, folders = run
    model, tokenizer = assemble(recipe, None)
    assert model.experts.names == ["detection", "detr", "clip", "dinov3", "git", "segformer"]
    for name in folders:
        alone = loaded(recipe.experts[name])["it"]
        assert_same(alone, model.experts[name])
    table = model.get_input_embeddings().weight

    def start(expert: str, label: str) -> torch.Tensor:
        index = model.experts[expert].labels.index(label)
        return model.alignment.adapters[expert].mixture.weight[:, index]

    def words(text: str) -> torch.Tensor:
        return table[tokenizer(text, add_special_tokens=False).input_ids].mean(0)

    for expert, label in (("detr", "traffic light"), ("detr", "x3"), ("clip", "red ball"), ("segformer", "cat")):
        torch.testing.assert_close(start(expert, label), words(label))
    # The mean of several pieces, not one of them.
    assert len(tokenizer("traffic light", add_special_tokens=False).input_ids) > 1
    hidden = [index for index, label in enumerate(model.experts["detr"].labels) if label is None]
    assert model.alignment.adapters["detr"].mixture.weight[:, hidden].eq(0).all()
    assert model.alignment.adapters["detr"].residual[-1].weight.eq(0).all()
    # Without any words it starts at random.
    assert model.alignment.adapters["dinov3"].mixture.weight.ne(0).any()
    assert model.alignment.adapters["dinov3"].residual[-1].weight.ne(0).any()


def test_the_model_needs_no_checkpoint_any_more(run, tmp_path, pictures):
    recipe, folders = run
    model, tokenizer = assemble(recipe, None)
    model.eval().save_pretrained(tmp_path / "model")
    AstreaProcessor(AstreaImageProcessor(64), tokenizer, model.num_visual_tokens).save_pretrained(tmp_path / "model")
    for folder in folders.values():
        shutil.rmtree(folder)
    again, processor = load_model(tmp_path / "model")
    assert_same(model.experts, again.experts)
    why = explain(again, processor, pictures[0], "what is this?")
    assert set(why.readings) == set(model.experts.names)
    assert 0 < sum(why.shares.values()) < 1
    pixels = torch.from_numpy(to_square_array(pictures[0], 64)).permute(2, 0, 1).float().div(255).unsqueeze(0)
    assert why.readings["git"].caption == model.experts["git"].readings(pixels)[0].caption


def test_they_cost_no_memory_to_outline(run):
    recipe, _ = run
    entries = {name: resolve(name, entry) for name, entry in recipe.experts.items()}
    declared = expert_specs(entries)
    assert isinstance(declared["detection"], DetectionExpert)
    assert all(each.is_meta for each in declared["detection"].parameters())
    assert all(parameter.is_meta for parameter in declared["detr"].parameters())
    assert declared["detr"].labels == ExpertBank(entries)["detr"].labels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_experts_of_checkpoints_see_in_whatever_type_the_model_is_moved_to(dtype, entry, pixels, tmp_path):
    names = ("detr", "segformer", "clip", "blip", "dinov3")
    model = saved({name: entry(name) for name in names}, tmp_path).to(dtype)
    seen = model.encode_images(pixels.to(dtype))
    readings = model.experts.readings(pixels)
    for name in names:
        assert {p.dtype for p in model.experts[name].parameters()} == {dtype}
        assert seen[name].tokens.isfinite().all(), name
        assert (seen[name].confidence >= 0).all(), name
        assert readings[0][name].expert
    assert model.fuse(seen, None, torch.zeros(len(pixels), 1, 32), None).tokens.isfinite().all()
