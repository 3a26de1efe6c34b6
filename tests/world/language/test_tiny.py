"""The tiny language model as it starts."""

from __future__ import annotations

import torch

from astrea.recipes.recipe import LanguageModel
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer

SIZE = LanguageModel(width=32, layers=2, heads=2, feed_forward=48)


def test_it_has_the_size_that_was_asked_for():
    tokenizer = tiny_tokenizer()
    model = tiny_language_model(SIZE, tokenizer)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (32, 2, 48)
    assert config.vocab_size == len(tokenizer)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert config._attn_implementation == "eager"


def test_heads_start_with_equal_query_and_key_maps_of_their_own():
    layers = tiny_language_model(SIZE, tiny_tokenizer()).model.layers
    for layer in layers:
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        assert torch.equal(query, key)
        assert query.data_ptr() != key.data_ptr()
        assert 0.01 < query.std().item() < 0.1
    assert not torch.equal(layers[0].self_attn.q_proj.weight, layers[1].self_attn.q_proj.weight)


def test_the_seed_decides():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(tiny_language_model(SIZE, tiny_tokenizer()).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not torch.equal(models[0]["lm_head.weight"], models[2]["lm_head.weight"])
