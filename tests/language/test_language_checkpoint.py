"""Loading any language model with its tokenizer: what it is given, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig

from astrea.common.errors import AstreaError
from astrea.language import checkpoint
from astrea.language.checkpoint import load_language, prepare_tokenizer
from astrea.language.labels import LabelWords, inside_a_sentence
from astrea.recipes.recipe import LanguageModel
from language_builders import FAMILIES, small_tokenizer


@pytest.fixture
def copied(language_checkpoint, tmp_path):
    """A copy of a family's checkpoint that a test may spoil."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(language_checkpoint(family), tmp_path / family))

    return copy


def load(folder: Path, **changes):
    return load_language(LanguageModel(checkpoint=str(folder), **changes))[:2]


@pytest.mark.parametrize("family", FAMILIES)
def test_words_that_are_needed_start_as_the_mean_of_the_others(language_checkpoint, family):
    folder = language_checkpoint(family)
    old = AutoModelForCausalLM.from_pretrained(folder)
    raw = small_tokenizer(family)
    model, tokenizer = load(folder)
    new = [i for word, i in tokenizer.get_vocab().items() if word not in raw.get_vocab()]
    assert tokenizer.convert_tokens_to_ids("<image>") in new
    assert len(new) == (1 if raw.pad_token else 2)
    assert tokenizer.pad_token_id not in (None, tokenizer.convert_tokens_to_ids("<image>"))
    tables = [(old.get_input_embeddings().weight, model.get_input_embeddings().weight)]
    tied = model.config.tie_word_embeddings
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    if not tied:
        tables.append((old.get_output_embeddings().weight, model.get_output_embeddings().weight))
    for before, after in tables:
        room = len(before) - len(raw)
        assert len(after) == max(len(before), len(tokenizer))
        assert torch.equal(after[: len(raw)], before[: len(raw)])
        for i in new:
            torch.testing.assert_close(after[i], before[: len(raw)].mean(0), atol=1e-6, rtol=1e-5)
        assert room == FAMILIES[family].room
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert tokenizer("a<image> b", add_special_tokens=False).input_ids.count(image) == 1
    # A padding token that the tokenizer had stays, even where it ends texts: labels do not go by it.
    assert raw.pad_token is None or tokenizer.pad_token == raw.pad_token
    assert raw.pad_token is not None or tokenizer.pad_token_id != tokenizer.eos_token_id


def test_preparing_twice_changes_nothing():
    for family in FAMILIES:
        tokenizer = small_tokenizer(family)
        prepare_tokenizer(tokenizer)
        size, template = len(tokenizer), tokenizer.chat_template
        assert prepare_tokenizer(tokenizer) == []
        assert (len(tokenizer), tokenizer.chat_template) == (size, template)


def test_fresh_weights_are_of_the_same_architecture(language_checkpoint):
    language = LanguageModel(checkpoint=str(language_checkpoint("qwen3")))
    torch.manual_seed(3)
    fresh, tokenizer, _ = load_language(language, pretrained=False)
    warm, other, _ = load_language(language)
    assert tokenizer.get_vocab() == other.get_vocab()
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (fresh, warm)]
    assert shapes[0] == shapes[1]
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.allclose(fresh.get_parameter(name), warm.get_parameter(name), atol=0.05)


def test_dropout_is_off_and_the_type_as_asked(language_checkpoint):
    model, _ = load(language_checkpoint("gpt2"), dtype="bfloat16", attention="sdpa")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "sdpa"
    model.train()
    ids = torch.arange(5).unsqueeze(0)
    assert torch.equal(model(ids).logits, model(ids).logits)


def spoil_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickled(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lacking(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def escaping(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not valid JSON"),
        (lambda f: spoil_json(f / "config.json", model_type="unheard"), "cannot be loaded"),
        (lambda f: spoil_json(f / "config.json", model_type="unheard", auto_map={"AutoConfig": "a.B"}), "cannot be"),
        (lambda f: spoil_json(f / "config.json", quantization_config={"bits": 4}), "quantised"),
        (lambda f: spoil_json(f / "config.json", intermediate_size=10**8), "describes a model of"),
        (lambda f: spoil_json(f / "config.json", intermediate_size=40), "cannot be loaded"),
        (lambda f: spoil_json(f / "config.json", layer_types=["full_attention", "chunked_attention"]), "chunked"),
        (pickled, "(?s)no safetensors file.*pytorch_model.bin cannot be read instead"),
        (cut, r"model\.safetensors is damaged"),
        (lacking, "missing keys.*up_proj"),
        (escaping, "which is no file beside it"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), r"tokenizer\.json holds a JSON list"),
    ],
)
def test_bad_checkpoints_are_named(copied, spoil, said):
    folder = copied("qwen3")
    spoil(folder)
    with pytest.raises(AstreaError, match=said) as caught:
        load(folder)
    assert str(folder) in str(caught.value) or "chunked" in said


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=400, state_size=4),
        BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=400, initializer_range=0.5),
    ],
    ids=["mamba", "bloom"],
)
def test_models_that_do_not_obey_mask_and_positions_are_refused(config, tmp_path):
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    small_tokenizer("llama").save_pretrained(tmp_path)
    with pytest.raises(AstreaError, match=r"cannot be a language model here|does not keep to|reads tokens"):
        load(tmp_path)


def test_a_hub_id_needs_a_commit(monkeypatch, language_checkpoint):
    with pytest.raises(AstreaError, match=r"needs a revision"):
        load(Path("some-owner/some-name"))
    with pytest.raises(AstreaError, match="no checkpoint folder"):
        load(Path("no/such/folder"))
    asked = {}

    def download(name: str, **options) -> str:
        asked.update(options, name=name)
        return str(language_checkpoint("llama_tied"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    load(Path("some-owner/some-name"), revision="0" * 40)
    assert (asked["name"], asked["revision"]) == ("some-owner/some-name", "0" * 40)
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in asked["allow_patterns"])

    def offline(name: str, **options) -> str:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(AstreaError, match="cannot be fetched: no route"):
        checkpoint.find_checkpoint("some-owner/some-name", "0" * 40)


@pytest.mark.parametrize(
    "bad",
    [
        {"revision": "main", "checkpoint": "a/b"},
        {"revision": "0" * 40},
        {"dtype": "bfloat16"},
        {"attention": "flash_attention_2"},
        {"low_rank": {"rank": 0}},
        {"low_rank": {"targets": ["(a+)+$"]}},
        {"low_rank": {"targets": []}},
        {"low_rank": {"targets": "q_proj"}},
    ],
)
def test_bad_recipes(bad):
    with pytest.raises(ValueError, match="validation error"):
        LanguageModel(**bad)


@pytest.mark.parametrize(
    ("family", "said"), [("llama", ["Ġcat"]), ("gpt2", ["Ġcat"]), ("gemma3", ["▁cat"]), ("qwen3", ["Ġcat"])]
)
def test_labels_are_words_inside_a_sentence(family, said):
    tokenizer = small_tokenizer(family)
    assert tokenizer.convert_ids_to_tokens(inside_a_sentence("cat", tokenizer)) == said
    ids = inside_a_sentence("umbrella left", tokenizer)
    assert tokenizer.decode(ids).strip() == "umbrella left"


def test_labels_are_read_as_the_language_model_reads_words(language_checkpoint):
    model, tokenizer = load(language_checkpoint("gemma3"), dtype="bfloat16")
    words = LabelWords(["red cat", None, "dog"], tokenizer)
    found = words.read(model.get_input_embeddings())
    pieces = inside_a_sentence("red cat", tokenizer)
    own = model.get_input_embeddings()(torch.tensor(pieces)).float().mean(0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], own)
    scale = found[0].norm() / words.embed(model.get_input_embeddings().weight.float())[0].norm()
    assert float(scale.detach()) == pytest.approx(32**0.5, rel=0.02)
    assert found[1].eq(0).all()
