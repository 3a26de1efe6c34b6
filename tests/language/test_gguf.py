"""GGUF files become ordinary checkpoint folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from astrea.common.errors import AstreaError
from astrea.language import gguf as reading
from astrea.language.checkpoint import load_language
from astrea.language.gguf import folder_from_gguf, smollm2_file
from astrea.recipes.recipe import LanguageModel
from language_builders import small_tokenizer

HEADS, WIDTH, LAYERS = 2, 64, 1


@pytest.fixture(scope="module")
def original() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(small_tokenizer("llama_tied")),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def in_file_order(weight: torch.Tensor) -> torch.Tensor:
    """Query and key rows as llama.cpp has them: the two halves of a rotation beside each other."""
    halves = weight.view(HEADS, 2, len(weight) // HEADS // 2, -1)
    return halves.transpose(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def file(original, tmp_path_factory) -> Path:
    """The same model as a GGUF file, its matrices in 16 bits."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(original.config.vocab_size)
    tokenizer = small_tokenizer("llama_tied")
    merges = [" ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    special = set(tokenizer.added_tokens_decoder)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
    writer.add_token_types([3 if number in special else 1 for number in range(len(tokenizer))])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "model.layers": "blk",
    }  # fmt: skip
    for name, weight in original.state_dict().items():
        if name.startswith("lm_head"):
            continue
        value = in_file_order(weight) if ".q_proj" in name or ".k_proj" in name else weight
        for long, short in names.items():
            name = name.replace(long, short)
        writer.add_tensor(name, value.half().numpy() if value.ndim > 1 else value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_folder_holds_the_same_model_with_its_tokenizer(file, original, tmp_path):
    folder = folder_from_gguf(file, tmp_path / "folder")
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[5, 9, 17, 3, 40]])
    torch.testing.assert_close(model(ids).logits, original(ids).logits, atol=2e-2, rtol=2e-2)
    tokenizer, before = AutoTokenizer.from_pretrained(folder), small_tokenizer("llama_tied")
    text = "what colour is the cat?"
    assert tokenizer(text).input_ids == before(text).input_ids
    assert tokenizer.chat_template == before.chat_template
    loaded = load_language(LanguageModel(checkpoint=str(folder)))  # no quantised weights, no other file
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_half_precision_takes_half_the_room(file, tmp_path):
    sizes = [
        (folder_from_gguf(file, tmp_path / dtype, dtype=dtype) / "model.safetensors").stat().st_size
        for dtype in ("float32", "bfloat16")
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_what_cannot_be_read_is_told(file, tmp_path):
    with pytest.raises(AstreaError, match="there is no file"):
        folder_from_gguf(tmp_path / "none.gguf", tmp_path / "a")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(AstreaError, match=r"cut\.gguf cannot be read"):
        folder_from_gguf(cut, tmp_path / "b")
    with pytest.raises(AstreaError, match="not an empty folder"):
        folder_from_gguf(file, tmp_path)
    assert not (tmp_path / "b").exists()


def test_what_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "SMOLLM2", ("no_such_package", "any.gguf"))
    with pytest.raises(AstreaError, match="no-such-package is not installed"):
        smollm2_file()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(AstreaError, match="reading a GGUF file needs the library gguf"):
        folder_from_gguf(tmp_path / "any.gguf", tmp_path / "a")
