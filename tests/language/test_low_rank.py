"""Low-rank tuning: adapters that learn alone, that are saved, loaded and merged."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from typer.testing import CliRunner

from astrea import AstreaConfig, AstreaError, AstreaForConditionalGeneration
from astrea.cli import app
from astrea.data.packing import Packer, Turn
from astrea.language.low_rank import adapter_parameters, is_adapter, merge
from astrea.model.loading import load_model
from language_builders import FAMILIES

TURNS = [[Turn("is it red?", "no"), Turn("what is it?", "a red cat")]]
LOW_RANK = "llm.low_rank={rank: 4, alpha: 8, merge: false}"


@pytest.fixture
def look(pictures):
    """Logits of a packed row about one picture."""

    def logits(model, processor) -> torch.Tensor:
        packer = Packer(processor.tokenizer, model.num_visual_tokens)
        features = model.encode_images(processor(images=pictures[:1])["pixel_values"])
        with torch.no_grad():
            return model(**packer.pack(TURNS).model_inputs(), features=features).logits

    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_with_adapters_and_merged_it_computes_the_same(build_around, family, look, tmp_path):
    model, processor = build_around(family, LOW_RANK)  # every weight of it is random, the adapters' too
    names = [name for name, _ in adapter_parameters(model.language_model)]
    assert names
    assert not any("lm_head" in name or "embed" in name or "wte" in name for name in names)
    before = look(model, processor)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again, its = load_model(tmp_path / "model")
    assert [name for name, _ in adapter_parameters(again.language_model)] == names
    torch.testing.assert_close(look(again, its), before, atol=3e-5, rtol=1e-5)
    without = again.language_model.state_dict()
    result = CliRunner().invoke(app, ["merge", str(tmp_path / "model"), "--out", str(tmp_path / "merged")])
    assert result.exit_code == 0, result.output
    merged, its = load_model(tmp_path / "merged")
    assert merged.config.low_rank is None
    assert not any(is_adapter(name) or "base_layer" in name for name in merged.state_dict())
    torch.testing.assert_close(look(merged, its), before, atol=2e-4, rtol=1e-3)
    changed = [
        n for n, p in merged.language_model.state_dict().items() if n not in without or n.endswith("proj.weight")
    ]
    assert changed
    type(merged).from_pretrained(tmp_path / "merged")


def test_fresh_adapters_change_nothing_and_only_they_learn(build_around, language_checkpoint, pictures, look):
    plain, processor = build_around("qwen3")
    torch.manual_seed(0)
    config = AstreaConfig.from_dict(plain.config.to_dict() | {"low_rank": {"rank": 2, "targets": ["q_proj", "v_proj"]}})
    tuned = AstreaForConditionalGeneration(config).eval()
    own = tuned.state_dict()
    renamed = dict(plain.state_dict())
    for name in own:
        if ".base_layer." in name:
            renamed[name] = renamed.pop(name.replace(".base_layer.", "."))
    missing, surplus = tuned.load_state_dict(renamed, strict=False)
    assert surplus == []
    assert all(is_adapter(name) for name in missing)
    torch.testing.assert_close(look(tuned, processor), look(plain, processor), atol=1e-6, rtol=1e-6)
    assert len(missing) == 2 * 2 * 2


def test_a_half_precision_model_keeps_its_adapters_exact(build_around, look, tmp_path):
    model, processor = build_around("llama", LOW_RANK, "llm.dtype=bfloat16")
    kinds = {is_adapter(n): p.dtype for n, p in model.language_model.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, its = load_model(tmp_path)
    assert {is_adapter(n): p.dtype for n, p in again.language_model.named_parameters()} == kinds
    assert torch.equal(look(again, its), look(model, processor))


def test_merging_needs_adapters_that_are_sound(build_around, tmp_path):
    plain, processor = build_around("llama")
    with pytest.raises(AstreaError, match="no low-rank adapters"):
        merge(plain)
    model, processor = build_around("llama", LOW_RANK)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    broken, _ = load_model(tmp_path)
    with torch.no_grad():
        next(p for _, p in adapter_parameters(broken.language_model)).fill_(float("nan"))
    with pytest.raises(AstreaError, match=r"adapter of .*proj holds NaN"):
        merge(broken)
    result = CliRunner().invoke(app, ["merge", str(tmp_path), "--out", str(tmp_path)])
    assert isinstance(result.exception, AstreaError)
    assert "not an empty folder" in result.exception.message


@pytest.mark.parametrize(
    ("low_rank", "said"),
    [
        ({"rank": 10**9}, r"low_rank\.rank"),
        ({"targets": ["(a|a)*b"]}, r"low_rank\.targets"),
        ({"targets": ["no_such_layer"]}, "no_such_layer.* is no layer"),
        ({"targets": ["lm_head"]}, "lm_head.*output layer"),
        ({"targets": ["embed_tokens"]}, "embed_tokens.*table of words"),
        ({"surprise": 1}, r"low_rank\.surprise"),
    ],
)
def test_a_hostile_configuration_is_refused(build_around, tmp_path, low_rank, said):
    model, processor = build_around("llama", LOW_RANK)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"low_rank": low_rank}))
    with pytest.raises(AstreaError, match=said):
        load_model(tmp_path)


@pytest.mark.parametrize("key", ["attention", "attn_implementation"])
def test_no_attention_is_fetched_from_the_hub(build_around, tmp_path, key):
    model, processor = build_around("llama")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "some-owner/some-kernel"}))
    with pytest.raises(AstreaError, match=r"attention implementation is .*some-owner"):
        load_model(tmp_path)


def test_without_the_library_the_mend_is_told(build_around, tmp_path, monkeypatch):
    model, processor = build_around("llama", LOW_RANK)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(AstreaError, match=r"\[lora\]"):
        load_model(tmp_path)
    shutil.rmtree(tmp_path)
