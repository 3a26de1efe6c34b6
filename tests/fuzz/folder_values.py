"""Odd values for the keys of a model folder's configurations."""

from __future__ import annotations

from typing import Any

PAYLOAD = "import pathlib\npathlib.Path('executed').write_text('x')\n"

# Ways of generating

GENERATION: dict[str, dict[str, Any]] = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "constrained": {"constraints": [[5]], "num_beams": 4},
    "forced words": {"force_words_ids": [[5, 6]], "num_beams": 4},
    "DoLa": {"dola_layers": "high"},
    "stop strings": {"stop_strings": ["a"]},
    "token healing": {"token_healing": True},
    "assisted": {"is_assistant": True, "num_assistant_tokens": 10**6},
    "prompt lookup": {"prompt_lookup_num_tokens": 10**6},
    "early exit": {"assistant_early_exit": 1},
    "static cache": {"cache_implementation": "static"},
    "quantised cache": {"cache_implementation": "quantized"},
    "offloaded cache": {"cache_implementation": "offloaded"},
    "guidance": {"guidance_scale": 5.0},
    "a dictionary returned": {"return_dict_in_generate": True, "output_scores": True},
    "hidden states returned": {"output_hidden_states": True, "return_dict_in_generate": True},
    "a million beams": {"num_beams": 1_000_000},
    "a million answers": {"num_return_sequences": 1_000_000, "do_sample": True},
    "beam groups": {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 1.0},
    "more answers than beams": {"num_beams": 2, "num_return_sequences": 8},
    "no beams": {"num_beams": 0},
    "a billion tokens": {"max_new_tokens": 10**9},
    "at least a billion tokens": {"min_length": 10**9, "min_new_tokens": 10**9},
    "token ids beyond the table": {"eos_token_id": 10**6},
    "negative token ids": {"pad_token_id": -5},
    "suppressed beyond the table": {"suppress_tokens": [10**7]},
    "everything suppressed": {"suppress_tokens": list(range(424))},
    "forced beyond the table": {"forced_bos_token_id": 10**6},
    "bad words": {"bad_words_ids": [[1] * 10**5]},
    "biased sequences": {"sequence_bias": [[[1, 2], -1e30]]},
    "a watermark": {"watermarking_config": {"greenlist_ratio": 0.5}},
    "compiled": {"compile_config": {"backend": "inductor"}},
    "code of its own": {"custom_generate": "custom", "trust_remote_code": True},
    "temperature of nothing": {"temperature": 0.0, "do_sample": True},
    "no number for temperature": {"temperature": "hot", "do_sample": True},
    "top of nothing": {"top_k": -1, "top_p": 7.0, "do_sample": True},
    "a list for a number": {"max_new_tokens": [1, 2]},
    "no ngram": {"no_repeat_ngram_size": 10**9},
    "time limit": {"max_time": 1e-9},
    "unknown key": {"magic": "x" * 1000},
    "penalty": {"repetition_penalty": 0.0},
    "encoder penalty": {"encoder_repetition_penalty": 2.0},
    "kept everything": {"low_memory": True, "penalty_alpha": 0.5},
    "many ends": {"eos_token_id": list(range(100_000))},
}

# Configurations

VIT = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
CONFIG: dict[str, dict[str, Any]] = {
    "a hundred thousand experts": {
        "experts": {f"e{i}": {"kind": "captioning"} for i in range(90_000)},
        "expert_names": [f"e{i}" for i in range(90_000)],
    },
    "no experts": {"experts": {}, "expert_names": []},
    "experts of no kind": {"experts": {"a": 1}, "expert_names": ["a"]},
    "expert to import": {"experts": {"a": {"kind": "evil:Evil"}}, "expert_names": ["a"]},
    "expert named like a method": {"experts": {"train": {"kind": "captioning"}}, "expert_names": ["train"]},
    "expert with a slash": {"experts": {"a/b": {"kind": "captioning"}}, "expert_names": ["a/b"]},
    "expert with a dot": {"experts": {"a.b": {"kind": "captioning"}}, "expert_names": ["a.b"]},
    "expert without a name": {"experts": {"": {"kind": "captioning"}}, "expert_names": [""]},
    "expert with odd options": {
        "experts": {"a": {"kind": "detection", "options": {"magic": 1}}},
        "expert_names": ["a"],
    },
    "expert with a list of options": {"experts": {"a": {"kind": "detection", "options": [1]}}, "expert_names": ["a"]},
    "huge transformers expert": {
        "experts": {
            "a": {
                "kind": "grid_checkpoint",
                "options": {"architecture": VIT | {"hidden_size": 2**20, "num_hidden_layers": 10**6}, "preprocess": {}},
            }
        },
        "expert_names": ["a"],
    },
    **{
        f"{kind} of huge size": {
            "experts": {
                "a": {
                    "kind": kind,
                    "options": {
                        "architecture": {"model_type": model, "hidden_size": 2**16, "num_hidden_layers": 10**5},
                        "preprocess": {"resize": [4096, 4096]},
                    },
                }
            },
            "expert_names": ["a"],
        }
        for kind, model in (("features", "dinov2"), ("tags", "vit"), ("boxes", "detr"), ("captions", "blip"))
    },
    "an adapter of huge size": {"adapter_hidden": 2**40},
    "an adapter of large size": {"adapter_hidden": 2**30},
    "a contrast of huge size": {"contrast_width": 2**30},
    "an adapter of nothing": {"adapter_hidden": 0},
    "an adapter of less": {"adapter_hidden": -5},
    "adapters of another rank": {"low_rank": {"rank": 10**9}},
    "adapters by a pattern": {"low_rank": {"targets": ["(a+)+$"]}},
    "adapters of the wrong type": {"low_rank": [1]},
    "image_size 63": {"image_size": 63},
    "image_size 0": {"image_size": 0},
    "image_size negative": {"image_size": -64},
    "image_size huge": {"image_size": 2**30},
    "image_size a list": {"image_size": [64, 64]},
    "image_size true": {"image_size": True},
    "image_size a float": {"image_size": 64.0},
    "image token beyond the table": {"image_token_id": 10**6},
    "image token negative": {"image_token_id": -1},
    "image token a word": {"image_token_id": "<image>"},
    "a quantised model": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "a quantised model of torchao": {"quantization_config": {"quant_method": "torchao", "quant_type": "int4"}},
    "code for the model": {"auto_map": {"AutoModelForImageTextToText": "evil.Evil", "AutoConfig": "evil.Evil"}},
    "attention from the hub": {"attention": "kernels-community/flash-attn"},
    "attention of another kind": {"attn_implementation": "flash_attention_2", "attention": "flex_attention"},
    "half a type": {"language_dtype": "float8"},
    "a type of pickles": {"dtype": "__import__('os').system('touch executed')"},
    "strategy with options": {"fusion": {"tau": 0}},
    "strategy of nothing": {"strategy": None},
    "another strategy": {"strategy": "mova", "fusion": {}},
    "strategy of many tokens": {"strategy": "attend", "fusion": {"tokens": 10**9}},
    "strategy sampling": {"strategy": "spatial_sampler", "fusion": {"tokens": 10**8, "points": 10**6}},
    "threshold infinite": {"fusion": {"threshold": float("inf")}},
    "threshold no number": {"fusion": {"threshold": float("nan"), "word_match": float("nan")}},
    "names twice": {"expert_names": ["captioning", "captioning", "segmentation", "detection"]},
    "tied": {"tie_word_embeddings": True},
    "pruned": {"pruned_heads": {"0": [0]}},
    "labels by the million": {"id2label": {str(i): "x" for i in range(200_000)}},
    "labels negative": {"num_labels": -1},
    "labels many": {"num_labels": 10**8},
    "architectures": {"architectures": [PAYLOAD]},
    "use_return_dict": {"return_dict": False, "output_attentions": True},
    "chunks": {"chunk_size_feed_forward": -1},
}
TEXT: dict[str, Any] = {
    "hidden_size": [2**20, 0, -1, 7, "a", None, [1], 1e308],
    "num_hidden_layers": [10**7, 0, -1, "a", None],
    "num_attention_heads": [10**6, 0, 3, -2, None],
    "num_key_value_heads": [10**6, 0, 3, None],
    "head_dim": [0, 2**20, -1, 3],
    "intermediate_size": [2**30, 0, -4],
    "vocab_size": [2**31, 0, -1, 8],
    "max_position_embeddings": [10**12, 0, -1, 4],
    "hidden_act": ["magic", None, "__import__", 5],
    "rms_norm_eps": [float("inf"), float("nan"), -1.0, "a"],
    "rope_parameters": [None, {}, {"rope_type": "magic"}, {"rope_type": "yarn", "factor": 0}, {"rope_theta": 0.0}],
    "model_type": ["gpt2", "mamba", "t5", "bloom", "magic", "astrea", None, 7, "opt", "mixtral"],
    "tie_word_embeddings": [False, "no"],
    "pad_token_id": [10**9, -1, "a"],
    "attention_dropout": [2.0, -1, "a"],
    "torch_dtype": ["float8_e4m3fn", "magic", 7],
    "layer_types": [["sliding_attention"] * 4, ["magic"], 5],
    "sliding_window": [0, -1, 10**12],
    "_attn_implementation": ["kernels-community/x", "flash_attention_2"],
    "quantization_config": [{"quant_method": "gptq", "bits": 4}],
    "auto_map": [{"AutoModelForCausalLM": "evil--x.Evil"}],
}
"""Values for keys of the language model's configuration."""

ODD: tuple[Any, ...] = (None, True, -1, 2**63, 1e308, "x", "", [], {}, [[[[]]]], {"a": {"a": 1}}, "../../etc/passwd")
