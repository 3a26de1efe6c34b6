"""Pretrained parts on disk, and the model that is assembled from them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.model.components import BUNDLED, CARD, LANGUAGE, load_component, read_card, save_component
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from astrea.recipes.recipe import LanguageModel
from astrea.training.assembly import assemble, random_weights
from astrea.world.experts.compact import COMPACT
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer

SIZE = LanguageModel(width=32, layers=2, heads=2, feed_forward=64)


class Small(nn.Module):
    """A part with a matrix, batch statistics and a counter."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


def small(width: int = 4) -> Small:
    made = Small(width)
    made.train()
    for _ in range(3):
        made.body(torch.randn(16, 3))
    return made


def write_card(folder, **changes) -> None:
    sha = {path.stem: sha256_file(path) for path in folder.glob("*.safetensors")}
    (folder / CARD).write_text(json.dumps({"sha256": sha} | changes))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_component(small(), tmp_path / "small.safetensors")
    write_card(tmp_path)
    return tmp_path


def test_a_part_comes_back_as_fp16_keeps_it(tmp_path):
    part = small()
    save_component(part, tmp_path / "small.safetensors")
    write_card(tmp_path)
    other = Small()
    load_component(other, tmp_path, "small")
    for (name, old), new in zip(part.state_dict().items(), other.state_dict().values(), strict=True):
        assert old.dtype == new.dtype, name
        if old.is_floating_point():
            assert torch.equal(new, old.half().float())
            assert torch.allclose(old, new, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(old, new)
    assert int(other.body[1].num_batches_tracked) == 3
    stored = load_file(tmp_path / "small.safetensors")
    assert stored["body.0.weight"].dtype == torch.float16


def test_tied_weights_are_written_once_and_stay_tied(tmp_path):
    torch.manual_seed(0)
    model = tiny_language_model(SIZE, tiny_tokenizer())
    save_component(model, tmp_path / "language.safetensors")
    write_card(tmp_path)
    assert sum("embed_tokens" in k or "lm_head" in k for k in load_file(tmp_path / "language.safetensors")) == 1
    torch.manual_seed(1)
    other = tiny_language_model(SIZE, tiny_tokenizer())
    load_component(other, tmp_path, LANGUAGE)
    assert other.lm_head.weight is other.model.embed_tokens.weight
    assert torch.equal(other.lm_head.weight, model.lm_head.weight.half().float())


def test_an_altered_file_is_refused_by_name(folder):
    path = folder / "small.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    part = Small()
    before = {k: v.clone() for k, v in part.state_dict().items()}
    with pytest.raises(AstreaError) as caught:
        load_component(part, folder, "small")
    assert str(path) in caught.value.message
    assert "sha256" in caught.value.message
    assert "astrea pretrain" in caught.value.hint
    assert all(torch.equal(v, before[k]) for k, v in part.state_dict().items())


def test_a_missing_part_is_named(folder):
    with pytest.raises(AstreaError, match=r"other\.safetensors.*missing"):
        load_component(Small(), folder, "other")


def test_a_part_that_a_card_takes_from_the_package_need_not_lie_in_the_folder(tmp_path):
    card = tmp_path / CARD
    card.write_text(json.dumps({"sha256": {"detection": read_card(BUNDLED)["sha256"]["detection"]}}))
    one, two = COMPACT["detection"](), COMPACT["detection"]()
    load_component(one, tmp_path, "detection")
    load_component(two, BUNDLED, "detection")
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    # Other bytes are nowhere, whatever the package has under that name.
    card.write_text(json.dumps({"sha256": {"detection": "0" * 64}}))
    with pytest.raises(AstreaError, match=r"detection\.safetensors: .*missing") as caught:
        load_component(one, tmp_path, "detection")
    assert str(tmp_path) in caught.value.message


def test_a_part_that_the_card_does_not_know_is_refused(folder):
    (folder / "other.safetensors").write_bytes((folder / "small.safetensors").read_bytes())
    with pytest.raises(AstreaError, match="sha256"):
        load_component(Small(), folder, "other")


@pytest.mark.parametrize("module", [Small(5), nn.Linear(3, 4), nn.ModuleList([Small(), nn.Linear(1, 1)])])
def test_another_size_is_refused(folder, module):
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(AstreaError) as caught:
        load_component(module, folder, "small")
    assert "does not fit" in caught.value.message
    assert str(folder / "small.safetensors") in caught.value.message
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("text", [None, "{", "[]", "7", '{"sha256": []}'])
def test_a_card_that_cannot_be_read_is_named(folder, text):
    card = folder / CARD
    if text is None:
        card.unlink()
    else:
        card.write_text(text)
    with pytest.raises(AstreaError) as caught:
        load_component(Small(), folder, "small")
    assert CARD in caught.value.message
    if text in (None, "{"):
        with pytest.raises(AstreaError, match="pretrain="):
            read_card(folder)


# Assembling


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of untrained parts of the small recipe."""
    made = tmp_path_factory.mktemp("parts")
    torch.manual_seed(5)
    for kind, cls in COMPACT.items():
        save_component(cls(), made / f"{kind}.safetensors")
    save_component(tiny_language_model(SIZE, tiny_tokenizer()), made / f"{LANGUAGE}.safetensors")
    write_card(made)
    return made


def words_of(model, tokenizer, text: str) -> torch.Tensor:
    return model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(text.split())]


def test_a_model_is_assembled_from_its_parts(make_run, parts):
    run = make_run()
    model, tokenizer = assemble(run, parts)
    for kind in COMPACT:
        stored = load_file(parts / f"{kind}.safetensors")
        own = model.experts[kind].state_dict()
        assert all(torch.equal(own[k].to(v.dtype), v) for k, v in stored.items())
    stored = load_file(parts / f"{LANGUAGE}.safetensors")
    own = model.language_model.state_dict()
    assert all(torch.equal(own[k], v.float()) for k, v in stored.items())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<image>")
    assert model.experts.names == list(run.experts)


def test_adapters_start_at_the_words_of_the_loaded_language_model(make_run, parts):
    model, tokenizer = assemble(make_run(), parts)
    mixture = model.alignment.adapters["detection"].mixture.weight
    labels = model.experts["detection"].labels
    for name in ("mouse", "x3", "sure", "detection"):
        assert torch.allclose(mixture[:, labels.index(name)], words_of(model, tokenizer, name)[0], atol=1e-6)
    speech = model.alignment.adapters["captioning"].mixture.weight
    assert speech[:, -64:].eq(0).all()
    for adapter in model.alignment.adapters.values():
        assert adapter.residual[-1].weight.eq(0).all()


def test_the_word_start_can_be_switched_off(make_run, parts):
    model, tokenizer = assemble(make_run(model={"word_start": False, "contrast_width": 16}), parts)
    adapter = model.alignment.adapters["detection"]
    assert adapter.residual[-1].weight.abs().sum() > 0
    index = model.experts["detection"].labels.index("mouse")
    assert not torch.allclose(adapter.mixture.weight[:, index], words_of(model, tokenizer, "mouse")[0], atol=1e-2)


def test_the_seed_decides_what_is_fresh(make_run):
    models = [assemble(make_run(seed=seed), None)[0].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(models[0][k], models[1][k]) for k in models[0])
    assert not torch.equal(models[0]["model.fusion.mixer.key.weight"], models[2]["model.fusion.mixer.key.weight"])


def test_another_language_size_is_refused(make_run, parts):
    with pytest.raises(AstreaError, match=r"language\.safetensors.*does not fit"):
        assemble(make_run(llm={"width": 64, "layers": 2, "heads": 2, "feed_forward": 64}), parts)


def test_ingredients_reach_the_model(make_run):
    run = make_run(
        model={"mixer": False, "gate_tau": 2.5, "gate_question": False, "contrast_width": 8},
        experts={"one": {"kind": "detection", "options": {"threshold": 0.4}}, "two": {"kind": "classification"}},
    )
    model, _ = assemble(run, None)
    assert model.fusion.mixer is None
    assert (model.fusion.allocator.tau, model.fusion.allocator.use_question) == (2.5, False)
    assert model.experts["one"].threshold == 0.4
    assert model.experts.names == ["one", "two"]
    assert model.num_visual_tokens == 12


def test_an_expert_of_ones_own_brings_its_words_without_moving_the_others(make_run, parts, tmp_path, monkeypatch):
    (tmp_path / "dusk_expert.py").write_text(
        "import torch\n"
        "from astrea.experts.protocol import Expert, ExpertFeatures\n"
        "class Dusk(Expert):\n"
        "    num_tokens, width, labels = 1, 2, ('gloomy', 'radiant')\n"
        "    def forward(self, x):\n"
        "        light = x.mean((1, 2, 3))\n"
        "        return ExpertFeatures(torch.stack([1 - light, light], -1)[:, None], torch.ones(len(x), 1))\n"
        "    def readings(self, x):\n"
        "        return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = make_run(experts={"dusk": {"kind": "dusk_expert:Dusk"}, "detection": {"kind": "detection"}})
    model, tokenizer = assemble(run, parts)
    plain, old = assemble(make_run(), parts)
    assert len(tokenizer) == len(old) + 2
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    for text in ("cat", "gives milk", "x3", "zebra", "##q", "a red sun."):
        ids, wanted = (t(text, add_special_tokens=False).input_ids for t in (tokenizer, old))
        one, two = (m.get_input_embeddings().weight for m in (model, plain))
        assert torch.equal(one[ids], two[wanted]), text
    assert tokenizer.tokenize("gloomy") == ["gloomy"]
    mixture = model.alignment.adapters["dusk"].mixture.weight
    assert torch.allclose(mixture[:, 0], words_of(model, tokenizer, "gloomy")[0])


# Architectures without a checkpoint

QWEN = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 3000,
    "tie_word_embeddings": True,
}
YOLOS = {
    "model_type": "yolos",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": [32, 32],
    "num_detection_tokens": 6,
    "num_labels": 3,
}


@pytest.fixture
def described(make_run):
    """A run of which one expert and the language model are only described."""

    def run(language: dict | None = None, expert: dict | None = None, **changes):
        entry = {"kind": "detection", "options": {"tokens": 4, "image_size": 32}, "architecture": YOLOS}
        experts = {"eye": entry | (expert or {}), "detection": {"kind": "detection"}}
        return make_run(llm={"architecture": QWEN} | (language or {}), experts=experts, **changes)

    return run


def test_an_architecture_is_that_network_with_random_weights(described, parts):
    model, tokenizer = assemble(described(), parts)
    again, _ = assemble(described(), parts)
    other, _ = assemble(described(seed=1), parts)
    assert type(model.language_model).__name__ == "Qwen3ForCausalLM"
    assert model.config.text_config.vocab_size == 3000 > len(tokenizer)
    states = [m.state_dict() for m in (model, again, other)]
    eye = next(
        name for name in states[0] if name.startswith("model.experts.experts.eye.") and name.endswith("dense.weight")
    )
    for name in ("model.language_model.embed_tokens.weight", eye):
        assert torch.equal(states[0][name], states[1][name]), name
        assert not torch.equal(states[0][name], states[2][name]), name
    # The other experts come from where they always do.
    stored = load_file(parts / "detection.safetensors")
    assert all(torch.equal(states[0][f"model.experts.experts.detection.{k}"].to(v.dtype), v) for k, v in stored.items())


def test_such_a_model_is_saved_and_loaded_like_any_other(described, tmp_path):
    model, tokenizer = assemble(described(), None)
    processor = AstreaProcessor(
        image_processor=AstreaImageProcessor(image_size=model.config.image_size),
        tokenizer=tokenizer,
        num_visual_tokens=model.num_visual_tokens,
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    back, read = load_model(tmp_path)
    pixels = torch.rand(1, 3, model.config.image_size, model.config.image_size)
    with torch.no_grad():
        before, after = model.eval().encode_images(pixels), back.encode_images(pixels)
    assert torch.equal(before["eye"].tokens, after["eye"].tokens)
    assert len(read.tokenizer) == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_its_type_is_the_recipes(described):
    model, _ = assemble(described({"dtype": "bfloat16"}), None)
    assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16}
    assert model.config.language_dtype == "bfloat16"


def test_random_weights_are_told_of(described, make_run):
    assert random_weights(make_run()) is None
    told = random_weights(described())
    assert "experts.eye" in told
    assert "llm" in told
    assert "experts.detection" not in told
    named = described({"checkpoint": "x/y", "revision": "a" * 40}, {"checkpoint": "x/y", "revision": "a" * 40})
    assert random_weights(named) is None


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ({"architecture": QWEN | {"vocab_size": 50}}, "knows 50 tokens"),
        ({"architecture": {"model_type": "no such thing"}}, "llm.architecture describes no model"),
        ({"architecture": {"model_type": "vit"}}, "no text-only"),
        ({"architecture": QWEN | {"num_attention_heads": 0}}, "llm.architecture describes no"),
    ],
)
def test_a_described_language_model_that_cannot_be_is_refused(described, language, said):
    with pytest.raises(AstreaError, match=said) as caught:
        assemble(described(language), None)
    assert caught.value.hint


def test_a_language_checkpoint_that_is_something_else_is_refused(make_run, tmp_path):
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
    ).save_pretrained(tmp_path)
    small = {"model_type": "llama", "hidden_size": 64}
    with pytest.raises(AstreaError, match=r"llm\.architecture\.hidden_size is 64.*says 32"):
        assemble(make_run(llm={"checkpoint": str(tmp_path), "architecture": small}), None)
