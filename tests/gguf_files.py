"""A small language model as a GGUF file, as llama.cpp's converter writes it; and such files that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from language_builders import small_tokenizer

HEADS, WIDTH, LAYERS = 2, 64, 1


def original_model() -> LlamaForCausalLM:
    """The model that `write_gguf` writes."""
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


def write_gguf(
    path: Path, model: LlamaForCausalLM, *, kind: str = "llama", without: str | None = None, **says: Any
) -> Path:
    """Write the model as a GGUF file, its matrices in 16 bits; returns the path.

    Args:
        kind: the architecture that the file names. without: a part of the names of tensors that are left out.
        says: what the file says of the model instead of the truth (``block_count=3``).
    """
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(says.get("block_count", LAYERS))
    writer.add_feed_forward_length(says.get("feed_forward_length", 96))
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(model.config.vocab_size)
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
    for name, weight in model.state_dict().items():
        if name.startswith("lm_head"):
            continue
        value = in_file_order(weight) if ".q_proj" in name or ".k_proj" in name else weight
        for long, short in names.items():
            name = name.replace(long, short)
        if without is None or without not in name:
            writer.add_tensor(name, value.half().numpy() if value.ndim > 1 else value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
