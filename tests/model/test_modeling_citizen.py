"""What transformers, its Trainer and libraries on top of it ask of any model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModel, LogitsProcessor, LogitsProcessorList, Trainer, TrainingArguments
from transformers.utils.generic import find_labels

from astrea import AstreaError, AstreaForConditionalGeneration
from astrea.data.packing import Packer, Turn
from astrea.model.backbone import AstreaModel
from astrea.model.registration import register


@pytest.fixture(scope="module")
def batch(tiny_processor, pictures) -> dict[str, Any]:
    """Two rows with one and two pictures."""
    texts = ["<bos><image><user>why?<assistant>", "<bos><image><image><user>is it red?<assistant>"]
    return dict(tiny_processor(images=[pictures[:1], pictures[1:3]], text=texts))


@pytest.fixture
def own_model(tiny_model) -> AstreaForConditionalGeneration:
    """One that a test may change."""
    return copy.deepcopy(tiny_model)


# The model without its head


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_the_head_makes_scores_of_what_the_model_inside_returns(build_around, family, pictures):
    model, processor = build_around(family)
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    inputs = packer.prompts(["is it red?"]) | {
        "features": model.encode_images(processor(images=pictures[:1])["pixel_values"])
    }
    inner = model.base_model
    assert type(inner) is AstreaModel
    assert inner is model.model
    out = inner(**inputs)
    whole = model(**inputs, output_hidden_states=True)
    torch.testing.assert_close(model.lm_head(out.last_hidden_state), whole.logits)
    assert torch.equal(whole.hidden_states[-1], out.last_hidden_state)
    assert torch.equal(out.shares, whole.shares)
    assert out.image_hidden_states.shape == (1, model.num_visual_tokens, out.last_hidden_state.shape[-1])


@torch.no_grad()
def test_scores_that_are_capped_stay_capped(build_around, pictures):
    model, processor = build_around("gemma2")
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    inputs = packer.prompts(["why?"]) | {
        "features": model.encode_images(processor(images=pictures[:1])["pixel_values"])
    }
    cap = model.config.text_config.final_logit_softcapping
    plain = model.lm_head(model.model(**inputs).last_hidden_state)
    torch.testing.assert_close(torch.tanh(plain / cap) * cap, model(**inputs).logits)


def test_a_backbone_under_a_head(own_model):
    """The layout that transformers gives every vision-language model."""
    assert dict(own_model.named_children()).keys() == {"model", "lm_head"}
    assert dict(own_model.model.named_children()).keys() == {"experts", "alignment", "fusion", "language_model"}
    assert own_model.base_model is own_model.model
    assert own_model.get_decoder() is own_model.model.language_model
    names = own_model.state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"model", "lm_head"}
    assert {name.removeprefix("model.") for name in names - {"lm_head.weight"}} == own_model.model.state_dict().keys()
    # The whole language model is put together of the same parts, also in a copy.
    for model in (own_model, copy.deepcopy(own_model)):
        assert model.language_model.base_model is model.model.language_model
        assert model.language_model.get_output_embeddings() is model.lm_head
        assert model.model.fusion is model.fusion
    assert own_model.train().model.training
    assert own_model.language_model.training
    assert not own_model.eval().model.training
    assert not own_model.language_model.training
    # Whoever puts a forward of their own over the whole model's leaves that of the inner one alone.
    own_model.forward = lambda **inputs: None
    assert type(own_model.model(torch.tensor([[7, 8]]))).__name__ == "AstreaModelOutput"


def test_a_part_that_is_replaced_is_replaced_everywhere(own_model, batch):
    other = copy.deepcopy(own_model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    own_model.fusion = other.fusion
    assert own_model.model.fusion is own_model.fusion is other.fusion
    own_model.language_model = other.language_model
    assert own_model.model.language_model is other.model.language_model
    assert own_model.lm_head is other.lm_head
    head = torch.nn.Linear(32, 7)
    own_model.lm_head = head
    assert own_model.get_output_embeddings() is head
    assert own_model(**batch).logits.shape[-1] == 7


def test_a_folder_loads_without_its_head(tiny_folder, tiny_model, batch):
    register()
    inner = AutoModel.from_pretrained(tiny_folder)
    assert type(inner) is AstreaModel
    with torch.no_grad():
        assert torch.equal(inner(**batch).last_hidden_state, tiny_model.model(**batch).last_hidden_state)


# What a call may ask for


@torch.no_grad()
def test_states_and_attentions_and_tuples(tiny_model, batch):
    out = tiny_model(**batch, output_hidden_states=True, output_attentions=True)
    layers, (rows, length) = tiny_model.config.text_config.num_hidden_layers, batch["input_ids"].shape
    assert [h.shape for h in out.hidden_states] == [(rows, length, 32)] * (layers + 1)
    assert [a.shape for a in out.attentions] == [(rows, 2, length, length)] * layers
    plain = tiny_model(**batch)
    assert plain.hidden_states is plain.attentions is None
    told = tiny_model(**batch, return_dict=False)
    assert isinstance(told, tuple)
    assert torch.equal(told[0], plain.logits)
    made = tiny_model.generate(
        **batch, max_new_tokens=2, output_hidden_states=True, output_attentions=True, return_dict_in_generate=True
    )
    assert len(made.hidden_states[0]) == layers + 1
    assert made.attentions[0][0].shape == (rows, 2, length, length)


@torch.no_grad()
def test_logits_of_some_tokens_only(tiny_model, batch):
    whole = tiny_model(**batch).logits
    torch.testing.assert_close(tiny_model(**batch, logits_to_keep=2).logits, whole[:, -2:])
    some = torch.tensor([3, 50])
    torch.testing.assert_close(tiny_model(**batch, logits_to_keep=some).logits, whole[:, some])
    with pytest.raises(AstreaError, match="all tokens"):
        tiny_model(**batch, labels=batch["input_ids"], logits_to_keep=1)


@torch.no_grad()
def test_embeddings_instead_of_ids(tiny_model, batch):
    embeds = tiny_model.get_input_embeddings()(batch["input_ids"])
    rest = {name: value for name, value in batch.items() if name != "input_ids"}
    assert torch.equal(tiny_model(**rest, inputs_embeds=embeds).logits, tiny_model(**batch).logits)
    options = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": [0, 1, 2, 3]}
    wanted = tiny_model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    assert torch.equal(tiny_model.generate(**rest, inputs_embeds=embeds, **options), wanted)


@torch.no_grad()
def test_visual_tokens_for_no_question(tiny_model, batch):
    found = tiny_model.get_image_features(batch["pixel_values"])
    assert found.pooler_output.shape == (3, tiny_model.num_visual_tokens, 32)
    features = tiny_model.encode_images(batch["pixel_values"])
    assert torch.equal(tiny_model.get_image_features(features=features).pooler_output, found.pooler_output)


@torch.no_grad()
def test_guidance_pushes_away_from_what_is_said_without_the_picture(tiny_model, batch):
    """Against the formula, step by step: log p(blind) + scale (log p(seen) - log p(blind))."""
    one = {name: value[1:2] for name, value in batch.items() if name != "pixel_values"}
    one["pixel_values"] = batch["pixel_values"][1:]
    options = {"do_sample": False, "max_new_tokens": 4, "suppress_tokens": [0, 1, 2, 3]}
    start = one["input_ids"].shape[1]
    made = tiny_model.generate(**one, guidance_scale=1.7, **options)
    for end in range(start, made.shape[1]):
        seen = tiny_model(**one | {"input_ids": made[:, :end], "attention_mask": None}, use_cache=False).logits[:, -1]
        blind = tiny_model(made[:, start - 1 : end], use_cache=False).logits[:, -1]
        seen, blind = seen.log_softmax(-1), blind.log_softmax(-1)
        scores = blind + 1.7 * (seen - blind)
        scores[:, :5] = -torch.inf
        assert int(scores.argmax()) == int(made[0, end])


@pytest.mark.slow
@torch.no_grad()
def test_a_pass_can_be_exported(tiny_model, batch):
    """All that follows the experts, who are convolutions and take long to trace."""
    model = copy.deepcopy(tiny_model)  # export leaves weak references to weights, which then cannot change devices

    class Pass(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.features = model, model.encode_images(batch["pixel_values"])

        def forward(self, **inputs):
            return self.model(**inputs, features=self.features, use_cache=False).logits

    inputs = {name: value for name, value in batch.items() if name != "pixel_values"}
    exported = torch.export.export(Pass(), (), inputs, strict=False)
    torch.testing.assert_close(exported.module()(**inputs), tiny_model(**batch).logits, atol=1e-5, rtol=1e-5)


# Words


def test_more_words(own_model, batch, tmp_path):
    with torch.no_grad():
        before = own_model(**batch).logits
        table = own_model.resize_token_embeddings(500)
        assert table is own_model.get_input_embeddings()
        after = own_model(**batch).logits
    assert after.shape[-1] == 500
    torch.testing.assert_close(after[..., : before.shape[-1]], before)
    assert own_model.lm_head.weight is table.weight
    own_model.save_pretrained(tmp_path)
    again = AstreaForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, after)
    head = torch.nn.Linear(32, 500, bias=False)
    own_model.set_output_embeddings(head)
    assert own_model.lm_head is own_model.language_model.lm_head is head


class Insist(LogitsProcessor):
    """Wants one word and no other."""

    def __init__(self, word: int) -> None:
        self.word = word

    def __call__(self, input_ids, scores):
        scores = torch.full_like(scores, -50.0)
        scores[:, self.word] = 1e4
        return scores


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 5.0, "top_k": 0},
        {"do_sample": True, "top_k": 1},
        {"num_beams": 3},
        {"use_cache": False},
        {"suppress_tokens": None, "sequence_bias": [[[4], 1000.0]]},
        {"prompt_lookup_num_tokens": 5, "batch": 1},
        {"logits_processor": LogitsProcessorList([Insist(4)])},
    ],
    ids=lambda options: " ".join(options),
)
def test_an_answer_never_says_the_mark_of_a_picture(own_model, batch, options):
    mark = own_model.config.image_token_id
    own_model.generation_config.suppress_tokens = None
    with torch.no_grad():
        # The likeliest word by far.
        own_model.lm_head.weight[mark] = 0
        state = own_model.model(**batch).last_hidden_state[:, -1].mean(0)
        own_model.lm_head.weight = torch.nn.Parameter(own_model.lm_head.weight.clone())
        own_model.lm_head.weight[mark] = 10 * state
    assert (own_model(**batch).logits[:, -1].argmax(-1) == mark).all()
    one = {name: value[:1] for name, value in batch.items()}
    inputs = one if options.pop("batch", 2) == 1 else batch
    made = own_model.generate(**inputs, max_new_tokens=3, **options)
    assert not (made[:, inputs["input_ids"].shape[1] :] == mark).any()


@pytest.mark.parametrize(
    "options", [{"penalty_alpha": 0.6, "top_k": 4}, {"dola_layers": "high"}, {"num_beam_groups": 2, "num_beams": 4}]
)
def test_ways_to_generate_that_need_code_from_elsewhere_are_refused(tiny_model, batch, options):
    with pytest.raises(ValueError, match="trust_remote_code"):
        tiny_model.generate(**batch, max_new_tokens=3, **options)


# Training by others


@pytest.fixture(scope="module")
def rows(tiny_model, tiny_processor, pictures) -> list[dict[str, Any]]:
    """Six rows, each a picture with a question and an answer."""
    packer = Packer(tiny_processor.tokenizer, tiny_model.num_visual_tokens)
    pixels = tiny_processor(images=pictures)["pixel_values"]
    return [
        dict(packer.pack([[Turn("is it red?", answer)]]).model_inputs()) | {"pixel_values": pixels[i % 4 : i % 4 + 1]}
        for i, answer in enumerate(["yes", "no", "yes", "no", "yes", "no"])
    ]


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def test_trainer_evaluates_predicts_and_keeps_the_best(own_model, rows, tmp_path):
    assert find_labels(AstreaForConditionalGeneration) == ["labels"]
    options = TrainingArguments(
        tmp_path,
        max_steps=4,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        learning_rate=1e-2,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": True},
    )
    trainer = Trainer(own_model, options, train_dataset=rows, eval_dataset=rows, data_collator=collate)
    before = trainer.evaluate()["eval_loss"]
    own = [float(own_model(**collate(rows[i : i + 2])).loss.detach()) for i in (0, 2, 4)]
    assert before == pytest.approx(sum(own) / 3, abs=1e-4)
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < before
    assert trainer.state.best_metric == pytest.approx(after, abs=1e-4)
    told = trainer.predict(rows)
    assert told.predictions.shape == (6, rows[0]["input_ids"].shape[1], len(own_model.embedding_table()))
    assert told.label_ids.shape == (6, rows[0]["labels"].shape[1])
    assert told.metrics["test_loss"] == pytest.approx(after, abs=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_learn_the_same_with_and_without_reentrance(own_model, rows, reentrant):
    own_model.train()
    found = []
    for twice in (False, True):
        if twice:
            own_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        own_model.zero_grad()
        own_model(**rows[0], use_cache=False).loss.backward()
        found.append({n: p.grad.clone() for n, p in own_model.named_parameters() if p.grad is not None})
    assert "model.fusion.word_match" in found[0]
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)
